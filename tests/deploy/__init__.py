"""What in `docker/` can be checked without a container engine.

python -m tests.deploy            linters and schemas (`make check-deploy`)
python -m tests.deploy.replay     what the images would run, run on four hosts of this machine
"""
