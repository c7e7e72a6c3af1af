#!/bin/sh
# Looks whether this container can do its work, then becomes the program that it was given.
# A fault ends it here, with a line that says what is wrong, before Ray or the service start.
set -eu
python -m fbp_ray.doctor --quick --ray.address local  # this machine alone: the cluster may still be starting
exec "$@"
