# Runs on a board as long as our connection: makes the folders, holds the lock, cleans up at the end.
# $1: what its lines begin with, also the name of its folder; $2: the command here that it is for;
# $3: who we are. Says `missing TOOL...`, `busy WHO`, `nowhere`, or `cache FOLDER` and then
# `ready CHECK FOLDER`; before it `note TEXT`.
# No backslashes: the user's login shell may read them in its own way.
umask 077
trap "" HUP PIPE
missing=
for tool in cat chmod mkdir mv rm uname; do
    command -v $tool >/dev/null 2>&1 || missing="$missing $tool"
done
[ -z "$missing" ] || { echo "$1 missing$missing"; exit 1; }

# An empty file is a program: the system refuses its format, and sh does nothing; or it may not run.
runs() { : >"$1/try" && chmod 700 "$1/try" && "$1/try" && rm -f "$1/try"; } 2>/dev/null

cache=${XDG_CACHE_HOME:-$HOME/.cache}/levit-deploy
mkdir -p "$cache" 2>/dev/null && [ -w "$cache" ] || cache=
if [ -n "$cache" ] && ! mkdir "$cache/lock" 2>/dev/null; then
    read -r boot pid command who 2>/dev/null <"$cache/lock/who"
    if [ -z "$who" ] || { [ "$command" != "$2" ] && [ "$boot" = "$(cat /proc/sys/kernel/random/boot_id)" ] && [ -e "/proc/$pid/exe" ]; }; then
        echo "$1 busy ${who:-somebody}"
        exit 1
    fi
    [ "$command" = "$2" ] || echo "$1 note the lock of $who was left behind, and is taken over"
    rm -rf "$cache/lock"
    mkdir "$cache/lock" || { echo "$1 busy somebody"; exit 1; }
fi
[ -z "$cache" ] || echo "$(cat /proc/sys/kernel/random/boot_id) $$ $2 $3" >"$cache/lock/who"

work=
for base in "$TMPDIR" /tmp /data/local/tmp "$cache"; do
    [ -n "$base" ] && mkdir "$base/$1" 2>/dev/null || continue
    if runs "$base/$1"; then
        work=$base/$1
        break
    fi
    rm -rf "$base/$1"
    echo "$1 note $base does not let programs run"
done
if [ -n "$work" ]; then
    check=none
    command -v wc >/dev/null 2>&1 && check=size
    command -v sha256sum >/dev/null 2>&1 && check=sha256
    echo "$1 cache $cache"
    echo "$1 ready $check $work"
    read -r end
else
    echo "$1 nowhere"
fi
[ -z "$work" ] || rm -rf "$work"
[ -z "$cache" ] || rm -rf "$cache/lock"
