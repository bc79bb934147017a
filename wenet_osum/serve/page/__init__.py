"""The web page: record or upload, see all that the model hears. Plain files, no build step, nothing from elsewhere."""
