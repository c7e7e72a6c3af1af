"""The service: POST sinograms, get images; submit jobs, follow them, serve the winner."""
