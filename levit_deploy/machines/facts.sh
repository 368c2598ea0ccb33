# What a machine is and how it is doing: for any POSIX shell; all that it calls is optional.
# No backslashes: a login shell that the text goes through may read them in its own way. Prints "@ NAME" and then what the file NAME holds, or what a command said.

say() { # NAME COMMAND...
    echo "@ $1"
    shift
    "$@" 2>&1
    echo
}

one() { # FILE...: those of one line, without a process for each
    for file in "$@"; do
        line=
        [ -r "$file" ] && IFS= read -r line 2>/dev/null <"$file"
        [ -n "$line" ] && echo "@ $file" && echo "$line"
    done
}

say uname uname -srm
for file in /proc/cpuinfo /proc/meminfo /proc/mounts; do
    [ -r "$file" ] && say "$file" cat "$file"
done
one /proc/sys/kernel/perf_event_paranoid
one /sys/devices/virtual/dmi/id/sys_vendor /sys/devices/virtual/dmi/id/product_name
one /sys/class/thermal/thermal_zone*/type /sys/class/thermal/thermal_zone*/temp
one /sys/devices/platform/soc/*firmware/get_throttled
[ -r /proc/device-tree/model ] && say /proc/device-tree/model cat /proc/device-tree/model
for pmu in /sys/bus/event_source/devices/*; do
    [ -r "$pmu/cpus" ] && one "$pmu/cpus" "$pmu/type"
done

before=none # of a kind of cores the caches of one
for core in /sys/devices/system/cpu/cpu[0-9]*; do
    one "$core/cpu_capacity" "$core/cpufreq/cpuinfo_max_freq"
    one "$core/cpufreq/scaling_cur_freq" "$core/cpufreq/scaling_governor"
    kind=0
    for file in "$core/cpu_capacity" "$core/cpufreq/cpuinfo_max_freq"; do
        [ -r "$file" ] && IFS= read -r line 2>/dev/null <"$file" && kind="$kind $line"
    done
    [ "$kind" = "$before" ] && continue
    before=$kind
    for cache in "$core"/cache/index*; do
        one "$cache/level" "$cache/type" "$cache/size"
    done
done

say loaders echo /lib/ld-* /lib64/ld-* /lib/*/ld-linux* /system/bin/linker*
say ldd ldd --version
for tool in getprop vcgencmd; do
    command -v $tool >/dev/null || continue
    [ $tool = getprop ] && say getprop getprop ro.build.version.sdk
    [ $tool = vcgencmd ] && say vcgencmd vcgencmd get_throttled
done
command -v python3 >/dev/null && say python3 python3 -c '
from importlib.util import find_spec
print(*[name for name in ("onnxruntime", "openvino", "torch") if find_spec(name)])'
echo "@ tmp"
echo "${TMPDIR:-/tmp}"
