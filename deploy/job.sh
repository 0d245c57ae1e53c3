#!/usr/bin/env bash
# Runs a command of facemill as a Job in the cluster, prints its output, and exits with its exit code.
#
#   [NAMESPACE=facemill] [CONTEXT=...] [DETACH=1] [START_SECONDS=300] deploy/job.sh COMMAND [ARGUMENT...]
#
# The Job is made from the CronJob facemill of the cluster, so it has the image, settings and keys of the workers, and
# --run names the run. It reads no files of this machine, and its own are lost when it ends: write to s3://.
#
# With DETACH the script ends when the Job is there, and prints the command that shows the log. START_SECONDS is the
# time in which the pod must start. ONLY lists the commands that are run; `make ask` gives those that only read.
set -euo pipefail

(($# > 0)) || { echo 'no command is given: make job ARGS="status --run faces"' >&2; exit 2; }
namespace=${NAMESPACE:-facemill}
start_seconds=${START_SECONDS:-300}
[[ $start_seconds =~ ^[0-9]{1,6}$ ]] || { echo "START_SECONDS=$start_seconds is no number of seconds" >&2; exit 2; }
[[ $1 =~ ^[a-z]{1,30}$ ]] || { echo "\`$1\` is no command of facemill" >&2; exit 2; }
case $1 in
    run | demo | curate | work) echo "facemill $1 does not run as a Job" >&2; exit 2 ;;
esac
only=${ONLY-$1}
[[ " $only " == *" $1 "* ]] || {
    echo "make ask runs only ${only// /, }: \`make job\` runs facemill $1" >&2
    exit 2
}
kubectl=(kubectl --namespace "$namespace")
[[ -z ${CONTEXT-} ]] || kubectl+=(--context "$CONTEXT")

job="$1-$(date +%s)-$RANDOM"
# Without an owner the CronJob does not count the Job as one of its own. Whoever asked sees a failure and decides: it is
# not repeated, except for the producer, which takes up its work again.
"${kubectl[@]}" create job "$job" --from=cronjob/facemill --dry-run=client --output json |
    python3 -c '
import json, sys
job = json.load(sys.stdin)
job["metadata"].pop("ownerReferences", None)
if sys.argv[1] != "produce":
    job["spec"]["backoffLimit"] = 0
job["spec"]["template"]["spec"]["containers"][0]["args"] = sys.argv[1:]
json.dump(job, sys.stdout)
' "$@" |
    "${kubectl[@]}" create --filename - >&2
log_command="${kubectl[*]} logs --follow job/$job"
if [[ -n ${DETACH-} ]]; then
    echo "$log_command"
    exit
fi

of_pod() { # prints a field of the pod's status
    "${kubectl[@]}" get pods --selector "batch.kubernetes.io/job-name=$job" --output "jsonpath={.items[0].status.$1}" 2>/dev/null || true
}
trap 'echo "the Job goes on: $log_command" >&2; exit 130' INT TERM
until [[ $(of_pod phase) =~ ^(Running|Succeeded|Failed)$ ]]; do
    if ((SECONDS >= start_seconds)); then
        reason="$(of_pod 'containerStatuses[0].state.waiting.message') $(of_pod 'conditions[0].message')"
        echo "the pod of job/$job has not started within $start_seconds s: $reason" >&2
        exit 3
    fi
    sleep 1
done
"${kubectl[@]}" logs --follow "job/$job" || true
# The log ends a moment before the state of the pod is known.
for _ in {1..60}; do
    code=$(of_pod 'containerStatuses[0].state.terminated.exitCode')
    [[ -z $code ]] || exit "$code"
    sleep 1
done
echo "the log broke off and the Job goes on: $log_command" >&2
exit 3
