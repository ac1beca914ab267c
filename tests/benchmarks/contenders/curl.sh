#!/bin/sh
# curl --parallel, jq to JSON lines.      sh curl.sh INPUT OUTPUT
set -eu
input=$1 output=$2
mkdir "$output/replies"

# The header row goes; each line becomes an address and the file for its answer.
tail -n +2 "$input" | awk -F, -v base="$MONGODB_ATLAS_BASE_URL/api/atlas/v2" -v to="$output/replies" '
  { printf "url = \"%s/groups/%s/clusters/%s/backupCheckpoints/%s\"\n", base, $1, $2, $3
    printf "output = \"%s/%s.json\"\n", to, $3 }' >"$output/config"

curl --silent --show-error --fail --parallel --parallel-max 64 \
  --header "Authorization: Bearer $MONGODB_ATLAS_ACCESS_TOKEN" \
  --header 'Accept: application/vnd.atlas.2023-01-01+json' \
  --config "$output/config"

find "$output/replies" -name '*.json' -print0 | xargs -0 cat >"$output/replies.json"
jq -c 'del(.parts, .links)' "$output/replies.json" >"$output/checkpoints.jsonl"
jq -c '{groupId, clusterId, id} + (.parts[])' "$output/replies.json" >"$output/parts.jsonl"
echo $(wc -l <"$output/checkpoints.jsonl") $(wc -l <"$output/parts.jsonl")
