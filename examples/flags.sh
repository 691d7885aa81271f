#!/bin/sh
# Reads a flag for a user; with PENNON_ADMIN_TOKEN also turns it on for everyone and reads it again.
#
#   sh examples/flags.sh [user]
set -eu

url=${PENNON_URL:-http://127.0.0.1:9000}
user=${1:-alice}

read_flag() {
  answer=$(curl --fail-with-body --silent --show-error -X POST "$url/ofrep/v1/evaluate/flags/new-checkout" \
    -H "Authorization: Bearer $PENNON_API_KEY" -d "{\"context\": {\"targetingKey\": \"$user\"}}")
  printf '%s\n' "$answer" | sed 's/.*"variant":"\([^"]*\)".*/\1/'
}

read_flag
if [ -n "${PENNON_ADMIN_TOKEN:-}" ]; then
  curl --fail-with-body --silent --show-error -o /dev/null -X PATCH "$url/api/admin/flags/new-checkout" \
    -H "Authorization: Bearer $PENNON_ADMIN_TOKEN" -d '{"rolloutPercentage": 100}'
  read_flag
fi
