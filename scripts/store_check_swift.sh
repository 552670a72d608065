#!/usr/bin/env bash
# Check a real S3 service that is not AWS's: OpenStack Swift with its s3api, of Debian's packages, on loopback;
# then train a small swarm over it. Nothing is installed: packages are unpacked into a folder, which is deleted.
#
#   scripts/store_check_swift.sh [PORT]      four ports from PORT on, 18080 by default
#
# Needs Debian 12 or a like system with apt-get, /usr/bin/python3, and a file system with extended attributes in
# TMPDIR. Downloads 25 MB. Not part of .ci/run.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
ensure_environment ""

port="${1:-18080}"
packages="swift-proxy swift-object swift-container swift-account memcached"
user=test:tester
work="$(mktemp -d)"
servers=()

stop() {
    for server in "${servers[@]}"; do kill "$server" 2>/dev/null || true; done
    wait
    rm -rf "$work"
}
trap stop EXIT

echo "unpacking Debian's $packages"
mkdir -p "$work"/{debs,root,etc,data/d1,logs}
(
    cd "$work/debs"
    missing="$(apt-get install --simulate --no-install-recommends $packages | awk '/^Inst/ {print $2}')"
    apt-get download $missing >"$work/logs/apt" 2>&1
    for package in *.deb; do dpkg -x "$package" "$work/root"; done
)
# The servers look for this file while they start, before they read where else it is.
sed -i "s#/etc/swift/swift.conf#$work/etc/swift.conf#" "$work/root/usr/lib/python3/dist-packages/swift/common/utils.py"
python=(env PYTHONPATH="$work/root/usr/lib/python3/dist-packages" PATH="$work/root/usr/bin:$PATH"
    LD_LIBRARY_PATH="$(echo "$work"/root/usr/lib/*-linux-gnu)" /usr/bin/python3)
programs="$work/root/usr/bin"

cat >"$work/etc/swift.conf" <<CONF
[swift-hash]
swift_hash_path_suffix = $RANDOM$RANDOM
[storage-policy:0]
name = one
default = yes
CONF
common="[DEFAULT]
bind_ip = 127.0.0.1
swift_dir = $work/etc
user = $(id -un)
workers = 0
mount_check = false
devices = $work/data
fallocate_reserve = 0
log_address = $work/none"

number=1
for kind in account container object; do
    at=$((port + number))
    printf '%s\nbind_port = %s\n[pipeline:main]\npipeline = %s-server\n[app:%s-server]\nuse = egg:swift#%s\n' \
        "$common" "$at" "$kind" "$kind" "$kind" >"$work/etc/$kind-server.conf"
    for step in "create 4 1 1" "add r1z1-127.0.0.1:$at/d1 1" rebalance; do
        "${python[@]}" "$programs/swift-ring-builder" "$work/etc/$kind.builder" $step >>"$work/logs/rings"
    done
    number=$((number + 1))
done
cat >"$work/etc/proxy-server.conf" <<CONF
$common
bind_port = $port
[pipeline:main]
pipeline = catch_errors gatekeeper cache listing_formats s3api tempauth copy slo dlo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:$((port + 4))
CONF
for filter in catch_errors gatekeeper listing_formats copy slo dlo; do
    printf '[filter:%s]\nuse = egg:swift#%s\n' "$filter" "$filter" >>"$work/etc/proxy-server.conf"
done

"$programs/memcached" -u "$(id -un)" -l 127.0.0.1 -p $((port + 4)) &
servers+=($!)
for kind in account container object proxy; do
    "${python[@]}" "$programs/swift-$kind-server" "$work/etc/$kind-server.conf" -v >"$work/logs/$kind-server" 2>&1 &
    servers+=($!)
done

export AWS_ACCESS_KEY_ID="$user" AWS_SECRET_ACCESS_KEY=testing AWS_EC2_METADATA_DISABLED=true
"$venv/bin/python" - "http://127.0.0.1:$port" <<'PYTHON' || { tail "$work"/logs/*-server; exit 1; }
import sys, time
import boto3
from botocore.exceptions import BotoCoreError, ClientError

client = boto3.client("s3", endpoint_url=sys.argv[1], region_name="us-east-1")
for left in reversed(range(360)):  # the first start compiles all of Swift
    try:
        client.create_bucket(Bucket="iota")
        break
    except (BotoCoreError, ClientError) as error:
        if left == 0:
            sys.exit(f"Swift does not start: {error}")
        time.sleep(0.5)
PYTHON
url="s3://iota/runs?endpoint=http://127.0.0.1:$port&region=us-east-1"
"$venv/bin/iota" store check "$url"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
"$venv/bin/python" -m tests.support.s3_swarm "$url" "$work/swarm"
