"""A finished run as something others can use: adapter or merged model, card, hub, one answer."""
