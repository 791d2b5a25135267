"""What a server embeds: text in, the top-K users out."""
