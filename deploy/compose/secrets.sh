#!/bin/sh
# Makes the secrets that compose.yaml mounts, once: what is there already stays as it is.
set -eu
cd "$(dirname "$0")"
# The folder keeps others of this machine out. The files themselves must be readable for the users
# of the containers, which have other numbers.
mkdir -p secrets
chmod 0700 secrets

random() {
  od -An -N32 -tx1 /dev/urandom | tr -d ' \n'
}

keep() {
  if [ ! -s "secrets/$1" ]; then
    cat > "secrets/$1"
    chmod 0444 "secrets/$1"
    echo "made secrets/$1"
  fi
}

random | keep token
random | keep grafana-password
random | keep postgres-password
printf 'postgresql://statekeep:%s@postgres/statekeep' "$(cat secrets/postgres-password)" | keep database-url
