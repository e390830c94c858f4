# Sourced by the run scripts that start several programs: one report for all of them.
#
#   . ../lib/parts.sh
#   part python3 .build/venv/bin/python main.py "$host" "$port"    # its cases become python3/<case>
#   finish

passed=0 failed=0

part() {
    local name=$1 line complete=no
    shift
    while IFS= read -r line; do
        case $line in
            "ok "*) passed=$((passed + 1)); echo "ok $name/${line#ok }" ;;
            "FAIL "*) failed=$((failed + 1)); echo "FAIL $name/${line#FAIL }" ;;
            "n/a "*) echo "n/a $name/${line#n/a }" ;;
            *" passed, "*" failed") complete=yes ;;
            *) echo "$line" >&2 ;;
        esac
    done < <("$@")
    if [ "$complete" = no ]; then
        # Whatever ended the program, cases of it may be missing above.
        failed=$((failed + 1))
        echo "FAIL $name: ended before its last case"
    fi
}

finish() {
    echo "$passed passed, $failed failed"
    [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
}
