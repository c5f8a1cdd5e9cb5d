#!/bin/sh
# A partner's program: posts an entry for each account that it reads, with a token that it renews.
# Secrets go through standard input, for other users of a machine see the arguments of programs.
set -eu

fetch() {
  asked=$(date +%s)
  answer=$(printf %s "$CLIENT_SECRET" |
    curl --silent --show-error --fail --max-time 10 --data grant_type=client_credentials \
      --data-urlencode "client_id=$CLIENT_ID" --data-urlencode client_secret@- "$TOKEN_URL")
  token=$(printf %s "$answer" | sed -n 's/.*"access_token": *"\([^"]*\)".*/\1/p')
  seconds=$(printf %s "$answer" | sed -n 's/.*"expires_in": *\([0-9]*\).*/\1/p')
  # One that expires within a minute is not used.
  end=$((asked + seconds - 60))
}

post() {
  printf 'authorization: Bearer %s' "$token" |
    curl --silent --show-error --max-time 20 ${CA_FILE:+--cacert "$CA_FILE"} --header @- \
      --header 'content-type: application/json' --write-out '\n%{http_code}' \
      --data "{\"draft\": {\"account\": \"$1\", \"amount\": 1250, \"currency\": \"EUR\"}}" \
      "https://$API/authz.demo.v1.LedgerService/PostEntry"
}

end=0
while read -r account; do
  [ "$(date +%s)" -lt "$end" ] || fetch
  reply=$(post "$account")
  if [ "${reply##*
}" = 401 ]; then
    fetch
    reply=$(post "$account")
  fi
  if [ "${reply##*
}" != 200 ]; then
    printf '%s\n' "$reply" >&2
    exit 1
  fi
  printf '%s\n' "$reply" | sed -n 's/.*"orgId": *"\([^"]*\)".*/posted for \1/p'
done
