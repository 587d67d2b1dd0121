"""Model folders as Hugging Face transformers writes them."""
