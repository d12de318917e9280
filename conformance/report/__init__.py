"""The verdict for people: text, pages, pictures, scripts."""
