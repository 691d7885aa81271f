#!/bin/sh
# Reads a flag for a user; with PENNON_ADMIN_TOKEN also turns it on for everyone and reads it again.
#
#   sh examples/flags.sh [user]
set -eu

url=${PENNON_URL:-http://127.0.0.1:9000}
user=$(printf '%s' "${1:-alice}" | sed 's/["\\]/\\&/g') # escaped for JSON

# Sends a request and prints the body of the response; that of an error as an error.
send() {
  body=$(curl --fail-with-body --silent --show-error "$@") || { printf '%s\n' "$body" >&2; return 1; }
  printf '%s\n' "$body"
}

read_flag() {
  answer=$(send -X POST "$url/ofrep/v1/evaluate/flags/new-checkout" \
    -H "Authorization: Bearer $PENNON_API_KEY" -d "{\"context\": {\"targetingKey\": \"$user\"}}")
  printf '%s\n' "$answer" | sed 's/.*"variant":"\([^"]*\)".*/\1/'
}

read_flag
if [ -n "${PENNON_ADMIN_TOKEN:-}" ]; then
  send -X PATCH "$url/api/admin/flags/new-checkout" \
    -H "Authorization: Bearer $PENNON_ADMIN_TOKEN" -d '{"rolloutPercentage": 100}' >/dev/null
  read_flag
fi
