#!/bin/sh
# Makes the tokens that everything here shares, once; those that are there already stay.
#
#   docker/secrets.sh                 into docker/secrets, which git does not see
#   docker/secrets.sh --kubernetes    the same as a Secret on standard output, for kubectl apply -f -
set -eu
cd "$(dirname "$0")"
mkdir -p secrets
# Only the owner enters the folder. The files themselves are open: containers read them as a user of their own.
chmod 700 secrets
for name in ray operate reconstruct grafana; do
  if [ ! -s "secrets/$name" ]; then
    od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > "secrets/$name"
    chmod 644 "secrets/$name"
  fi
done
if [ "${1:-}" = --kubernetes ]; then
  cat <<MANIFEST
apiVersion: v1
kind: Secret
metadata:
  name: fbp-ray-tokens
  namespace: fbp-ray
type: Opaque
stringData:
  auth_token: "$(cat secrets/ray)"
  operate: "$(cat secrets/operate)"
  reconstruct: "$(cat secrets/reconstruct)"
MANIFEST
fi
