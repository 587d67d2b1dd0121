"""Model folders in the format of Hugging Face transformers: configuration, names of tensors."""
