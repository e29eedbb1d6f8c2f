#!/usr/bin/env bash
# Shows Mediary at work: installs what is needed, starts a real Synapse with Mediary in front, sends a photograph through
# it and fetches it back in every way. Then leaves both running, to try by hand, until Ctrl-C.
#
#   tests/try.sh [--once] [PHOTOGRAPH]
#
#   --once       ends after the show; fails if anything was not as it should be
#   PHOTOGRAPH   one of your own instead of the nuthatch
#
# MEDIARY_BIN=FILE takes that binary instead of building one.
set -euo pipefail
# shellcheck source=tests/steps.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/steps.sh"
export LC_ALL=C

once=
photo=$ROOT/target/photo/nuthatch.jpg
credit="a nuthatch, by Lukas Baubkus, CC BY-SA 3.0"
for argument; do
    case $argument in
        --once) once=1 ;;
        -*) fail "no option $argument; see the top of this file" ;;
        *)
            photo=$(cd "$OLDPWD" && realpath -e "$argument")
            credit=${photo##*/}
            ;;
    esac
done

# --- start and stop ---------------------------------------------------------------------------------------------------

clean_up_at_exit

start_both() {
    local port admin_port synapse
    dir=$(own_dir "$ROOT/target/try")
    read -r port admin_port < <(tests/synapse.py ports 2)
    base=http://127.0.0.1:$port
    admin=http://127.0.0.1:$admin_port

    synapse=$(tests/synapse.py start --dir "$dir/synapse" --public-baseurl "$base/")
    upstream=$(field url <<<"$synapse")
    secret=$(field registration_shared_secret <<<"$synapse")

    start_mediary "$dir/mediary.log" "127.0.0.1:$admin_port" "$binary" \
        --upstream "$upstream" --listen "127.0.0.1:$port" --data-dir "$dir/mediary"
}

# --- the show ---------------------------------------------------------------------------------------------------------

# ask STATUS NAME CURL-ARGUMENT...: one request; $dir/NAME gets the body and $dir/NAME.head the headers, $ms the time.
ask() {
    local expected=$1 name=$2 status seconds
    shift 2
    read -r status seconds < <(curl -sS -o "$dir/$name" -D "$dir/$name.head" -w '%{http_code} %{time_total}\n' "$@")
    ms=$(awk "BEGIN { printf \"%.1f\", $seconds * 1000 }")
    if [[ $status != "$expected" ]]; then
        fail "expected $expected, got $status from curl ${*//"$token"/TOKEN}" \
            "$(head -c 300 "$dir/$name" | tr -cd '[:print:]')"
    fi
}

# told WHAT STATUS SIZE REMARK: a line on the last request; SIZE in bytes.
told() {
    awk -v what="$1" -v status="$2" -v bytes="$3" -v ms="$ms" -v remark="$4" 'BEGIN {
        size = bytes == "" ? "" : bytes < 1000 ? bytes " B" : bytes < 1000000 ? sprintf("%.1f KB", bytes / 1000) \
            : sprintf("%.1f MB", bytes / 1000000)
        printf "   %-26s %s %9s %8.1f ms   %s\n", what, status, size, ms, remark
    }'
}

size() {
    stat -c %s "$1"
}

# header NAME FILE: the value of that header.
header() {
    sed -n "s/^$1: *//Ip" "$2.head" | tr -d '\r'
}

# picture FILE [METHOD WIDTH HEIGHT ORIGINAL]: media type and size of a picture; as a thumbnail, it must fit what was
# asked for.
picture() {
    "$VENV_PYTHON" - "$@" <<'PYTHON'
import sys
from PIL import Image, ImageOps

def read(file):
    try:
        picture = Image.open(file)
    except OSError as error:
        sys.exit(str(error))
    return Image.MIME[picture.format], ImageOps.exif_transpose(picture).size

kind, size = read(sys.argv[1])
if len(sys.argv) > 2:
    method, width, height, original = sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), read(sys.argv[5])[1]
    fits = size == (width, height) if method == "crop" else size[0] == width or size[1] == height
    small = original[0] < width or original[1] < height
    if not fits and not small:
        sys.exit(f"the {method} to {width}x{height} is {size[0]}x{size[1]}")
print(kind, "%dx%d" % size)
PYTHON
}

show() {
    local alice described kind dimensions name etag half thumbnail reason
    token=none
    alice=$(tests/synapse.py user --url "$base" --secret "$secret" --name alice)
    user=$(field user_id <<<"$alice")
    password=$(field password <<<"$alice")
    token=$(field access_token <<<"$alice")
    described=$(picture "$photo")
    read -r kind dimensions <<<"$described"
    echo "   photograph: $credit, $dimensions"
    echo "   user $user, registered through Mediary"
    echo

    ask 200 versions "$base/_matrix/client/versions"
    curl -sS "$upstream/_matrix/client/versions" | cmp -s - "$dir/versions" || fail "not what Synapse answers"
    told "versions" 200 "$(size "$dir/versions")" "Synapse's own answer, passed through"

    name=${photo##*/}
    ask 200 upload "$base/_matrix/media/v3/upload?filename=${name//[^A-Za-z0-9._-]/_}" -H "Authorization: Bearer $token" \
        -H "Content-Type: $kind" --data-binary "@$photo"
    mxc=$(field content_uri <"$dir/upload")
    media=$base/_matrix/client/v1/media
    file=${mxc#mxc://}
    told "upload" 200 "$(size "$photo")" "$mxc"

    ask 200 first "$media/download/$file" -H "Authorization: Bearer $token"
    cmp -s "$photo" "$dir/first" || fail "the download differs from the upload"
    told "download" 200 "$(size "$dir/first")" "the same bytes"

    etag=$(header ETag "$dir/first")
    [[ $etag ]] || fail "the download has no ETag"
    ask 304 unchanged "$media/download/$file" -H "Authorization: Bearer $token" -H "If-None-Match: $etag"
    told "asked again, with its ETag" 304 "" "not sent twice"

    half=$(($(size "$photo") / 2))
    ask 206 part "$media/download/$file" -H "Authorization: Bearer $token" -r "$half-"
    cmp -s --ignore-initial="$half:0" "$photo" "$dir/part" || fail "the range has other bytes"
    told "its second half" 206 "$(size "$dir/part")" "$(header Content-Range "$dir/part")"

    thumbnail="$media/thumbnail/$file?width=320&height=240&method=scale"
    ask 200 scaled "$thumbnail" -H "Authorization: Bearer $token"
    described=$(picture "$dir/scaled" scale 320 240 "$photo")
    told "thumbnail, scaled" 200 "$(size "$dir/scaled")" "$described, made now"
    ask 200 again "$thumbnail" -H "Authorization: Bearer $token"
    cmp -s "$dir/scaled" "$dir/again" || fail "the thumbnail came out differently"
    told "the same again" 200 "$(size "$dir/again")" "kept"

    ask 200 cropped "$media/thumbnail/$file?width=96&height=96&method=crop" -H "Authorization: Bearer $token"
    described=$(picture "$dir/cropped" crop 96 96 "$photo")
    told "thumbnail, cropped" 200 "$(size "$dir/cropped")" "$described, made now"

    ask 401 refused "$media/download/$file"
    reason=$(field errcode <"$dir/refused")
    [[ $reason == M_MISSING_TOKEN ]] || fail "refused with $reason"
    told "download without a token" 401 "" "$reason"
}

# What the reader can paste.
invite() {
    local here=${dir#"$ROOT/"}
    cat <<EOF

Both are running; Ctrl-C ends them and removes what they stored.

   Mediary   $base           log $here/mediary.log
   Synapse   $upstream           log $here/synapse/homeserver.log
   account   $user, password $password; a client such as Element logs in at $base

   MEDIARY=$base TOKEN=$token
   curl -H "Authorization: Bearer \$TOKEN" -o photo.jpg "\$MEDIARY/_matrix/client/v1/media/download/$file"
   curl -H "Authorization: Bearer \$TOKEN" -o small.jpg "\$MEDIARY/_matrix/client/v1/media/thumbnail/$file?width=640&height=480&method=scale"
   curl -H "Authorization: Bearer \$TOKEN" -H "Content-Type: image/jpeg" --data-binary @photo.jpg "\$MEDIARY/_matrix/media/v3/upload"
   curl $admin/metrics

EOF
}

step "1/4 what is needed"
tests/setup.sh packages synapse photo

step "2/4 Mediary"
if [[ ${MEDIARY_BIN:-} ]]; then
    binary=$MEDIARY_BIN
else
    binary=$CARGO_TARGET/release/mediary
    quietly "release build (minutes, the first time)" "$ROOT/target/setup/build.log" \
        cargo build --release --bin mediary
fi

step "3/4 Synapse $(sed -n 's/^matrix-synapse.*==//p' tests/requirements.txt) with $("$binary" --version) in front"
start_both

step "4/4 a photograph there and back, through Mediary"
show

if [[ $once ]]; then
    stop_mediary || fail "Mediary did not end well when asked to: status $?"
    echo
    echo "All as it should be ($(elapsed 0))."
else
    invite
    while kill -0 "$mediary" 2>/dev/null; do sleep 1; done
    fail "Mediary ended by itself"
fi
