"""May drawings be shared? Asks, by generators that did not see an image, who was in the training data."""

# The verdict by which nothing should be shared; here, where nothing is imported.
GIVES_AWAY = "gives away"
