"""May drawings be shared? Asks, by generators that did not see an image, who was in the training data."""

GIVES_AWAY = (
    "gives away"  # the verdict by which nothing should be shared; here, where nothing is imported
)
