#!/usr/bin/env bash
# Uploads a dump to the installation's bucket and starts the producer in the cluster.
#
#   DUMP=dump.sql.gz [RUN=default] [NAMESPACE=facemill] [CONTEXT=...] [S3_URL=...] deploy/submit.sh
#
# S3_URL is where this machine reaches the store, where that is not as the workers do: http(s)://host[:port], an
# ingress for example. Without it, a store that is a Service of the cluster is reached through `kubectl port-forward`.
#
# The Job is filled into the cluster's own form (CronJob facemill), so that it has the image, the settings and the
# keys that the workers have. Run again after any failure: no photo is doubled.
set -euo pipefail

dump=${DUMP:?say which dump: make submit DUMP=dump.sql.gz}
run=${RUN:-default}
namespace=${NAMESPACE:-facemill}
kubectl=(kubectl --namespace "$namespace")
[[ -z ${CONTEXT-} ]] || kubectl+=(--context "$CONTEXT")
[[ -f $dump ]] || { echo "$dump is not a file" >&2; exit 2; }
[[ $run =~ ^[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?$ ]] || { echo "RUN=$run: take letters, digits and dashes" >&2; exit 2; }

setting() { # NAME: of the workers' settings
    "${kubectl[@]}" get configmap "$settings" --output "jsonpath={.data.$1}"
}
secret() {
    "${kubectl[@]}" get secret facemill-servers --output "jsonpath={.data.$1}" | base64 -d
}
form='{.spec.jobTemplate.spec.template.spec.containers[0].envFrom[0].configMapRef.name}'
settings=$("${kubectl[@]}" get cronjob facemill --output "jsonpath=$form")
bucket=$(setting FACEMILL_S3_BUCKET)
region=$(setting AWS_REGION)
endpoint=${S3_URL:-$(setting FACEMILL_S3_ENDPOINT)}
region=${region:-us-east-1}

forward=
end_forward() {
    local outcome=$?
    [[ -n $forward ]] || return 0
    kill "$forward" 2>/dev/null || true
    # It knows why there was no answer.
    ((outcome == 0)) || cat <&3 >&2
}
trap end_forward EXIT
if [[ -z $endpoint ]]; then
    place="https://$bucket.s3.$region.amazonaws.com"
elif [[ -z ${S3_URL-} && $endpoint =~ ^http://([a-z0-9-]+):([0-9]+)/?$ ]]; then
    # A service of the cluster: reached through its API server.
    exec 3< <(exec "${kubectl[@]}" port-forward "service/${BASH_REMATCH[1]}" ":${BASH_REMATCH[2]}" 2>&1)
    forward=$!
    read -r -t 30 line <&3 || { echo "kubectl port-forward to $endpoint says nothing" >&2; exit 3; }
    [[ $line =~ 127.0.0.1:([0-9]+) ]] || { echo "kubectl port-forward: $line" >&2; exit 3; }
    place="http://127.0.0.1:${BASH_REMATCH[1]}/$bucket"
else
    place="${endpoint%/}/$bucket"
fi

# The name says what is in it: the same dump is uploaded to the same place.
hash=$(sha256sum -- "$dump" | cut -c1-64)
name=$(basename -- "$dump" | tr -c 'A-Za-z0-9._\n-' _)
key="dumps/${hash:0:16}/$name"
echo "uploading $dump to s3://$bucket/$key"
# The store checks the hash. The keys go through a file that no list of processes shows.
curl --fail-with-body --silent --show-error --max-time 3600 --retry 5 --noproxy 127.0.0.1 \
    --aws-sigv4 "aws:amz:$region:s3" \
    --config <(printf 'user = "%s:%s"\n' "$(secret s3-access-key-id)" "$(secret s3-secret-access-key)") \
    --header "x-amz-content-sha256: $hash" --upload-file "$dump" "$place/$key"

job="produce-$run-${hash:0:8}-$(date +%s)"
"${kubectl[@]}" create job "$job" --from=cronjob/facemill --dry-run=client --output json |
    python3 -c '
import json, sys
job = json.load(sys.stdin)
job["spec"]["template"]["spec"]["containers"][0]["args"] = sys.argv[1:]
json.dump(job, sys.stdout)
' produce "s3://$bucket/$key" --run "$run" |
    "${kubectl[@]}" create --filename -
echo "${kubectl[*]} logs --follow job/$job"
