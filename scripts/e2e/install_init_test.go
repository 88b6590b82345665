//go:build e2e

package e2e

import (
	"strings"
	"testing"
	"time"

	"weft/scripts/e2e/lab"
)

// Every obstacle to an installation is reported in one line with a remedy, and leaves
// nothing behind.
func TestInstallFailures(t *testing.T) {
	t.Parallel()
	i := newInstallLab(t, true)
	s := i.sys
	before := files(s)
	token := i.server.NewKey().Token
	line := i.server.InstallLine(token)
	s.Must("sh", "-c", strings.Replace(line[:strings.Index(line, " |")], "curl ", "curl -o /tmp/install.sh ", 1))
	s.Must("mkdir", "-p", "/tmp/fake")
	fake := func(name, script string) {
		s.WriteFile("/tmp/fake/"+name, "#!/bin/sh\n"+script+"\n")
		s.Must("chmod", "755", "/tmp/fake/"+name)
	}
	used := i.server.NewKey().Token
	other := i.Node(i.Host("other"), "other")
	other.Up(used)
	for _, c := range []struct {
		name         string
		before, run  string
		after        string
		want, remedy string
	}{
		{name: "not root", run: "runuser -u nobody -- sh -c '" + line + "'", want: "takes root", remedy: "su -"},
		{name: "no such token", run: strings.Replace(line, token, "weft1nonsense", 1), want: "token", remedy: "copy"},
		{name: "no token", run: strings.Replace(line, token, "hello", 1), want: "what is hello?", remedy: "weft-server keys create"},
		{name: "no room", before: "mount -t tmpfs -o size=4m tmpfs /usr/local/bin", run: line, after: "umount /usr/local/bin", want: "no room in /usr/local/bin", remedy: "make room"},
		{name: "read-only", before: "mount --bind /usr/local /usr/local && mount -o remount,ro,bind /usr/local", run: line, after: "umount /usr/local", want: "read-only", remedy: "df -h"},
		{name: "no program for it", before: "fake s390x", run: "PATH=/tmp/fake:$PATH; " + line, after: "rm /tmp/fake/uname", want: "not built for s390x", remedy: "README"},
		{name: "not in the release", before: "fake armv6l", run: "PATH=/tmp/fake:$PATH; " + line, after: "rm /tmp/fake/uname", want: "no weft for linux/armv6", remedy: "scripts/release --key FILE linux/armv6"},
		{name: "does not run", before: "fake riscv64", run: "PATH=/tmp/fake:$PATH; " + line, after: "rm /tmp/fake/uname", want: "does not run here", remedy: "od -A n"},
		{name: "no route", before: "ip link set eth0 down", run: "sh /tmp/install.sh " + token, after: "ip link set eth0 up; ip route add default via 192.168.1.1", want: "no route to the server", remedy: "ping 203.0.113.10"},
		{name: "1970", before: "ip link set eth0 down; fake date", run: "PATH=/tmp/fake:$PATH sh /tmp/install.sh " + token, after: "rm /tmp/fake/date; ip link set eth0 up; ip route add default via 192.168.1.1", want: "clock says Thu Jan", remedy: "date -s"},
		{name: "not root, busybox", run: "runuser -u nobody -- busybox sh /tmp/install.sh " + token, want: "takes root", remedy: "su -"},
		{name: "no token, busybox", run: "busybox sh /tmp/install.sh hello", want: "what is hello?", remedy: "weft-server keys create"},
		{name: "no room, busybox", before: "mount -t tmpfs -o size=4m tmpfs /usr/local/bin", run: "busybox sh /tmp/install.sh " + token, after: "umount /usr/local/bin", want: "no room in /usr/local/bin", remedy: "make room"},
		{name: "no curl", run: "mkdir /tmp/bare; for p in sh cat sed id uname date df awk mkdir grep rm dirname tr cut; do ln -s $(command -v $p) /tmp/bare/; done; PATH=/tmp/bare sh /tmp/install.sh " + token, want: "neither curl nor wget", remedy: "apt-get install curl"},
	} {
		t.Run(c.name, func(t *testing.T) {
			setup, name, isFake := strings.Cut(c.before, "fake ")
			if isFake && name == "date" {
				fake("date", `case "$*" in +%Y) echo 1970;; *) echo Thu Jan 1 00:00:13 UTC 1970;; esac`)
			} else if isFake {
				fake("uname", `case "$1" in -m) echo `+name+`;; *) echo Linux;; esac`)
			}
			if setup != "" {
				s.Must("sh", "-c", setup)
			}
			r := s.Run("sh", "-c", c.run)
			if c.after != "" {
				s.Must("sh", "-c", c.after)
			}
			// curl's own messages come first.
			said := strings.Split(strings.TrimSpace(r.Err), "\n")
			last := said[len(said)-1]
			for _, l := range said[:len(said)-1] {
				if !strings.HasPrefix(l, "curl: ") && !strings.HasPrefix(l, "weft 1.0.0 for ") {
					t.Errorf("more than one line: %v", r)
				}
			}
			if r.Code == 0 || !strings.HasPrefix(last, "weft: ") || !strings.Contains(last, c.want) || !strings.Contains(last, c.remedy) {
				t.Errorf("want %q and %q: %v", c.want, c.remedy, r)
			}
		})
	}
	s.Must("sh", "-c", "if [ -x /usr/local/bin/weft ]; then weft uninstall --purge; fi")
	if left := added(before, files(s)); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}

	// The server refuses a used token after the service was started: running the line
	// again with a new token continues from there.
	r := i.paste(s, used)
	if r.Code == 0 || !strings.Contains(r.Err, "token") || strings.Count(r.Err, "\n") > 2 {
		t.Errorf("used token: %v", r)
	}
	i.works(s, token, "--hostname", "kitchen-pi")
	i.fetch("kitchen-pi", 30*time.Second)
}

// rcCommon is the part of OpenWrt's /etc/rc.common and procd that starts a daemon.
const rcCommon = `#!/bin/sh
initscript=$1 action=$2 name=${1##*/}
procd_open_instance() { cmd= env=; }
procd_set_param() { p=$1; shift; case $p in command) cmd="$*" ;; env) env="$*" ;; esac; }
procd_append_param() { p=$1; shift; case $p in env) env="$env $*" ;; esac; }
procd_add_reload_interface_trigger() { :; }
procd_close_instance() { env $env $cmd >/tmp/$name.log 2>&1 </dev/null & echo $! >/tmp/$name.pid; }
stop() { [ -e /tmp/$name.pid ] || return 0; kill $(cat /tmp/$name.pid); while kill -0 $(cat /tmp/$name.pid) 2>/dev/null; do sleep 0.1; done; rm /tmp/$name.pid; service_stopped; }
. $initscript
[ "$USE_PROCD" = 1 ] || exit 1
case $action in
enable) mkdir -p /etc/rc.d; ln -sf ../init.d/$name /etc/rc.d/S$START$name; ln -sf ../init.d/$name /etc/rc.d/K$STOP$name ;;
disable) rm -f /etc/rc.d/S$START$name /etc/rc.d/K$STOP$name ;;
start) start_service ;;
stop) stop ;;
restart) stop; start_service ;;
*) exit 2 ;;
esac
`

// openRC is the part of openrc-run that starts a daemon.
const openRC = `#!/bin/sh
initscript=$1 action=$2 name=${1##*/}
need() { :; }
after() { :; }
checkpath() { while [ $# -gt 1 ]; do shift; done; mkdir -p "$1"; }
start_pre() { :; }
stop_post() { :; }
. $initscript
depend
start() { start_pre; eval "exec $command $command_args" >/tmp/$name.log 2>&1 </dev/null & echo $! >/tmp/$name.pid; }
stop() { [ -e /tmp/$name.pid ] || return 0; kill $(cat /tmp/$name.pid); while kill -0 $(cat /tmp/$name.pid) 2>/dev/null; do sleep 0.1; done; rm /tmp/$name.pid; stop_post; }
case $action in
start) start ;;
stop) stop ;;
restart) stop; start ;;
*) exit 2 ;;
esac
`

// Systems with nothing but busybox: its shell and its wget run the script, and the
// service files for procd and OpenRC start the daemon.
func TestInstallBusybox(t *testing.T) {
	t.Parallel()
	i := newInstallLab(t, false)
	for _, c := range []struct {
		name, program, state, service string
		scripts                       map[string]string
	}{
		{"openwrt", "/usr/bin/weft", "/etc/weft/state", "/etc/rc.d/S95weft", map[string]string{
			"/etc/openwrt_release": "DISTRIB_ID='OpenWrt'\n", "/etc/rc.common": rcCommon, "/sbin/procd": "#!/bin/sh\n",
		}},
		{"alpine", "/usr/local/bin/weft", "/var/lib/weft", "/etc/runlevels/default/weft", map[string]string{
			"/sbin/openrc-run": openRC,
			"/sbin/addgroup":   "#!/bin/sh\n[ $1 = -S ] && echo $2:x:101: >> /etc/group\n",
			"/sbin/delgroup":   "#!/bin/sh\nsed -i /^$1:/d /etc/group\n",
			"/sbin/rc-update":  "#!/bin/sh\nmkdir -p /etc/runlevels/default\ncase $1 in add) ln -sf /etc/init.d/$2 /etc/runlevels/default/$2 ;; del) rm -f /etc/runlevels/default/$2 ;; esac\n",
			"/sbin/rc-service": "#!/bin/sh\nexec /etc/init.d/$1 $2\n",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := i.sys
			root := "/srv/" + c.name
			s.Must("sh", "-c", `mkdir -p $0/bin $0/proc $0/dev $0/tmp $0/etc/init.d $0/sbin $0/usr/bin $0/run $0/root
				cp /bin/busybox $0/bin/ && for f in /usr/bin/openssl $(ldd /usr/bin/openssl | grep -o '/[^ ]*'); do mkdir -p $0${f%/*}; cp -L $f $0$f; done; chroot $0 /bin/busybox --install -s /bin
				mount -t proc proc $0/proc && mount --bind /dev $0/dev
				echo root:x:0:0::/root:/bin/sh > $0/etc/passwd; echo root:x:0: > $0/etc/group`, root)
			for path, text := range c.scripts {
				s.WriteFile(root+path, text)
				s.Must("chmod", "755", root+path)
			}
			in := func(script string) lab.Result {
				return s.Run("chroot", root, "/bin/env", "-i", "PATH=/usr/local/bin:/usr/bin:/bin:/sbin", "HOME=/root", "/bin/sh", "-c", script)
			}
			before := in("find / -xdev -path /proc -prune -o -path /dev -prune -o -path /tmp -prune -o -print | sort").Out
			name := c.name + "-pi"
			line := "wget --no-check-certificate -qO /tmp/install.sh " + i.server.URL + "/install && sh /tmp/install.sh "
			r := in(line + i.server.NewKey().Token + " --hostname " + name)
			if r.Code != 0 || !strings.Contains(r.Out, name+".weft.internal") {
				t.Fatalf("%v\n%s", r, in("cat /tmp/weft.log").Out)
			}
			i.fetch(name, 30*time.Second)
			if r := in("test -L " + c.service + " && test -s " + c.state + "/node.json && " + c.program + " status"); r.Code != 0 || !strings.Contains(r.Out, name) {
				t.Errorf("%v", r)
			}
			i.release("1.1.0", i.key)
			if r := in(line); r.Code != 0 || !strings.Contains(r.Err, "weft 1.1.0 for") {
				t.Errorf("again: %v", r)
			}
			i.fetch(name, 30*time.Second)
			if r := in(line + " --uninstall --purge"); r.Code != 0 {
				t.Errorf("%v", r)
			}
			if r := in("cat /etc/group"); r.Out != "root:x:0:\n" {
				t.Errorf("left behind: %v", r)
			}
			after := in("find / -xdev -path /proc -prune -o -path /dev -prune -o -path /tmp -prune -o -print | sort").Out
			for _, f := range added(before, after) {
				if !strings.HasPrefix(f, "/etc/rc.d") && !strings.HasPrefix(f, "/etc/runlevels") && f != "/var" && f != "/var/lib" && f != "/usr/local" && f != "/usr/local/bin" {
					t.Errorf("left behind: %s", f)
				}
			}
		})
	}
}
