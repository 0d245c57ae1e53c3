#!/usr/bin/env bash
# Uploads a dump to the installation's bucket and starts the producer in the cluster.
#
#   DUMP=dump.sql.gz [RUN=default] [NAMESPACE=facemill] [CONTEXT=...] [S3_URL=...] deploy/submit.sh
#
# S3_URL is the address of the store from this machine, if it differs from the address that the workers use:
# http(s)://host[:port], for example of an ingress. Without it, a store inside the cluster is reached through
# `kubectl port-forward`.
#
# The script can be run again after any failure: no photo is doubled.
set -euo pipefail

dump=${DUMP:?is not set: make submit DUMP=dump.sql.gz}
run=${RUN:-default}
namespace=${NAMESPACE:-facemill}
kubectl=(kubectl --namespace "$namespace")
[[ -z ${CONTEXT-} ]] || kubectl+=(--context "$CONTEXT")
[[ -f $dump ]] || { echo "$dump is not a file" >&2; exit 2; }
[[ $run =~ ^[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?$ ]] || { echo "RUN=$run is not a valid name: use lower-case letters, digits and dashes, at most 32" >&2; exit 2; }

setting() { # prints the setting NAME of the workers
    "${kubectl[@]}" get configmap "$settings" --output "jsonpath={.data.$1}"
}
secret() { # prints the key NAME of the Secret
    "${kubectl[@]}" get secret facemill-servers --output "jsonpath={.data.$1}" | base64 -d
}
config_map_path='{.spec.jobTemplate.spec.template.spec.containers[0].envFrom[0].configMapRef.name}'
settings=$("${kubectl[@]}" get cronjob facemill --output "jsonpath=$config_map_path")
bucket=$(setting FACEMILL_S3_BUCKET)
region=$(setting AWS_REGION)
endpoint=${S3_URL:-$(setting FACEMILL_S3_ENDPOINT)}
region=${region:-us-east-1}

forward=
end_forward() {
    local status=$?
    [[ -n $forward ]] || return 0
    kill "$forward" 2>/dev/null || true
    # The output of kubectl names the reason.
    ((status == 0)) || cat <&3 >&2
}
trap end_forward EXIT
if [[ -z $endpoint ]]; then
    bucket_url="https://$bucket.s3.$region.amazonaws.com"
elif [[ -z ${S3_URL-} && $endpoint =~ ^http://([a-z0-9-]+):([0-9]+)/?$ ]]; then
    # A Service of the cluster is reached through the API server.
    exec 3< <(exec "${kubectl[@]}" port-forward "service/${BASH_REMATCH[1]}" ":${BASH_REMATCH[2]}" 2>&1)
    forward=$!
    read -r -t 30 line <&3 || { echo "kubectl port-forward to $endpoint does not answer within 30 s" >&2; exit 3; }
    [[ $line =~ 127.0.0.1:([0-9]+) ]] || { echo "kubectl port-forward: $line" >&2; exit 3; }
    bucket_url="http://127.0.0.1:${BASH_REMATCH[1]}/$bucket"
else
    bucket_url="${endpoint%/}/$bucket"
fi

# The key contains the hash, so the same dump always has the same key.
hash=$(sha256sum -- "$dump" | cut -c1-64)
name=$(basename -- "$dump" | tr -c 'A-Za-z0-9._\n-' _)
key="dumps/${hash:0:16}/$name"
echo "uploading $dump to s3://$bucket/$key"
# The store checks the hash. The credentials are passed in a file, so that no process list shows them.
curl --fail-with-body --silent --show-error --max-time 3600 --retry 5 --noproxy 127.0.0.1 \
    --aws-sigv4 "aws:amz:$region:s3" \
    --config <(printf 'user = "%s:%s"\n' "$(secret s3-access-key-id)" "$(secret s3-secret-access-key)") \
    --header "x-amz-content-sha256: $hash" --upload-file "$dump" "$bucket_url/$key"

DETACH=1 "$(dirname -- "${BASH_SOURCE[0]}")/job.sh" produce "s3://$bucket/$key" --run "$run"
