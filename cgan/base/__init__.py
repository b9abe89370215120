"""What every other room uses: errors, files, texts, reports, progress, git, commands and addresses."""
