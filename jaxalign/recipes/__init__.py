"""Training recipes: from token rows to a trained model, for the commands and the main job."""
