#!/bin/sh
# Installs weft @VERSION@ on this machine, or upgrades or repairs it. Made by
# @BASE@
# for this request; nothing else is contacted.
#
#	sh -s -- TOKEN [--hostname NAME] [--tun NAME] [--user] [--first-boot]
#	sh -s -- --uninstall [--purge]
#
# POSIX sh: dash and busybox run it. All of it is in functions, so that half a
# download does nothing.
set -eu

BASE=@BASE_QUOTED@
PIN=@PIN_QUOTED@

# What fails says what, why, and what to do.
fail() {
	echo "weft: $1" >&2
	exit 1
}

# SHA-256, size in KB and name of each program, by system and architecture.
programs() {
	cat <<'END'
@PROGRAMS@
END
}

# fetch NAME FILE: from our server. With a certificate of its own making, curl
# holds the server to the key that this script names; what the others fetch is
# held to the SHA-256 below, like everything.
fetch() {
	if command -v curl >/dev/null 2>&1; then
		how=-s
		case $1 in
		*manifest* | *.pub) ;;
		*) [ ! -t 2 ] || how=--progress-bar ;; # the program, and somebody waits for it
		esac
		if [ -n "$PIN" ]; then
			curl -fSLk "$how" --retry 5 --pinnedpubkey "$PIN" -o "$2" "$BASE/$1"
		else
			curl -fSL "$how" --retry 5 -o "$2" "$BASE/$1"
		fi
	elif command -v wget >/dev/null 2>&1; then
		if [ -n "$PIN" ]; then
			wget -q --no-check-certificate -O "$2" "$BASE/$1"
		else
			wget -q -O "$2" "$BASE/$1"
		fi
	else
		fail "neither curl nor wget is here; install one of them, for example: apt-get install curl"
	fi
}

get() {
	fetch "$1" "$2" || {
		if [ "$(date +%Y)" -lt 2025 ]; then
			fail "cannot fetch $1: this machine's clock says $(date), so certificates do not hold; set it: date -s '2026-01-31 12:00'"
		fi
		fail "cannot fetch $1 from $BASE: no route to the server, or it is down; try: ping ${HOST:-the server}"
	}
}

sum() {
	if command -v sha256sum >/dev/null 2>&1; then
		sha256sum "$1" | cut -d' ' -f1
	elif command -v shasum >/dev/null 2>&1; then
		shasum -a 256 "$1" | cut -d' ' -f1
	elif command -v openssl >/dev/null 2>&1; then
		openssl dgst -sha256 "$1" | sed 's/.* //'
	else
		fail "nothing here computes SHA-256; install coreutils or openssl"
	fi
}

system() {
	case $(uname -s) in
	Linux) echo linux ;;
	Darwin) echo darwin ;;
	FreeBSD) echo freebsd ;;
	*) fail "weft is not built for $(uname -s); see the README for building it" ;;
	esac
}

# little: is the byte order of this machine's programs little-endian?
little() { [ "$(dd if=/bin/sh bs=1 skip=5 count=1 2>/dev/null | od -An -tu1 | tr -d ' ')" = 1 ]; }

machine() {
	case $(uname -m) in
	x86_64 | amd64) echo amd64 ;;
	i?86) echo 386 ;;
	aarch64 | arm64) echo arm64 ;;
	armv7* | armv8*) echo armv7 ;;
	armv6*) echo armv6 ;;
	riscv64) echo riscv64 ;;
	mips*) if little; then echo mipsle; else echo mips; fi ;;
	*) fail "weft is not built for $(uname -m); see the README for building it" ;;
	esac
}

# place: the directory into which the program is fetched, on the file system
# where it is going to stay: /tmp may be too small, or may not run programs.
place() {
	if [ -n "$user" ]; then
		echo "$HOME/.local/bin"
	elif [ -e /etc/openwrt_release ]; then
		echo /usr/bin
	else
		echo /usr/local/bin
	fi
}

main() {
	token= user= uninstall= purge= args= as=
	while [ $# -gt 0 ]; do
		case $1 in
		--uninstall) uninstall=1 ;;
		--purge) purge=--purge ;;
		--user) user=--user ;;
		--first-boot) args="$args --first-boot" ;;
		--hostname | --tun)
			[ $# -ge 2 ] || fail "$1 wants a name"
			case $2 in *[!A-Za-z0-9._-]*) fail "$1 $2: want letters, digits, dots and dashes" ;; esac
			args="$args $1 $2"
			shift
			;;
		weft1*) token=$1 ;;
		-h | --help) sed -n '2,11p' "$0" 2>/dev/null || true; exit 0 ;;
		*) fail "what is $1? want a token (weft1...), which the console or weft-server keys create makes" ;;
		esac
		shift
	done
	HOST=$(echo "$BASE" | sed 's|^[a-z]*://||; s|[:/].*||')
	if [ -z "$user" ] && [ "$(id -u)" != 0 ]; then
		command -v sudo >/dev/null 2>&1 || fail "this takes root: become root first (su -), or add --user to the line for a service of your own"
		as=sudo
	fi
	dir=$(place)

	if [ -n "$uninstall" ]; then
		[ -x "$dir/weft" ] || fail "weft is not installed in $dir"
		exec $as "$dir/weft" uninstall $user $purge
	fi

	os=$(system)
	arch=$(machine)
	line=$(programs | grep " $os $arch " || true)
	[ -n "$line" ] || fail "this server has no weft for $os/$arch; its owner makes one with: scripts/release --key FILE $os/$arch, and copies it to the server's releases directory"
	# shellcheck disable=SC2086
	set -- $line
	want=$1 need=$2 name=$5

	$as mkdir -p "$dir" 2>/dev/null || fail "cannot make $dir: the file system is read-only or belongs to somebody else; remount it: mount -o remount,rw /"
	work=$dir/.weft-install.$$
	$as mkdir "$work" 2>/dev/null || fail "cannot write to $dir: the file system is read-only or full; see: df -h $dir"
	trap '$as rm -rf "$work"' EXIT
	trap 'exit 130' INT TERM
	[ -z "$as" ] || $as chown "$(id -u)" "$work"
	free=$(df -Pk "$dir" 2>/dev/null | awk 'NR == 2 { print $4 }')
	case $free in
	'' | *[!0-9]*) ;; # df knows nothing here, as in a chroot
	*)
		# The program is there twice for a moment.
		[ "$free" -ge $((2 * need + 1024)) ] || fail "no room in $dir: $free KB free, $((2 * need + 1024)) KB needed; make room and try again"
		;;
	esac

	echo "weft @VERSION@ for $os/$arch from $HOST" >&2
	get "$name" "$work/weft"
	[ "$(sum "$work/weft")" = "$want" ] || fail "what came from $BASE/$name is not what the server promised; try again, and if it stays so, look who answers in its place"
	chmod 755 "$work/weft"
	for f in manifest.json manifest.json.sig release.pub; do get "$f" "$work/$f"; done
	"$work/weft" version >/dev/null 2>&1 || fail "$name does not run here, though uname -m says $(uname -m); see what this machine's programs are made for: od -A n -N 20 -t x1 /bin/sh, and tell the owner of the server"
	# It verifies the signature of the release itself before it installs itself.
	# shellcheck disable=SC2086
	if [ -n "$token" ]; then
		printf '%s\n' "$token" | $as "$work/weft" install $user $args --release "$work" --token-file -
	else
		$as "$work/weft" install $user $args --release "$work"
	fi
}

main "$@"
