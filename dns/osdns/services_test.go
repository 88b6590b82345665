//go:build linux && !mips && !mipsle

package osdns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

// fakeBus is a system bus that records calls and answers from a table.
type fakeBus struct {
	answers map[string][]any
	errors  map[string]error
	calls   []string
}

func (b *fakeBus) call(_ context.Context, dest, path, method string, args ...any) ([]any, error) {
	short := method[strings.LastIndexByte(method, '.')+1:]
	if short == "Get" {
		short = fmt.Sprint(args[1])
	}
	b.calls = append(b.calls, strings.TrimSpace(fmt.Sprintln(append([]any{short}, args...)...)))
	if err := b.errors[short]; err != nil {
		return nil, err
	}
	if a, ok := b.answers[short]; ok {
		return a, nil
	}
	if strings.HasPrefix(dest, resolvedName) && strings.HasPrefix(short, "Set") {
		return nil, nil
	}
	return nil, dbus.Error{Name: "org.freedesktop.DBus.Error.ServiceUnknown"}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func fakeResolved(b *fakeBus) *resolved {
	r := newResolved(b, "weft0", quiet())
	r.index = func(string) (int, error) { return 7, nil }
	return r
}

// Every setting of the interface, in order.
func TestResolvedSet(t *testing.T) {
	b := &fakeBus{answers: map[string][]any{"FlushCaches": nil, "RevertLink": nil}}
	r := fakeResolved(b)
	applied, err := r.set(context.Background(), testConfig)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"SetLinkDNS 7 [{2 [100 100 100 100]}]",
		"SetLinkDomains 7 [{weft.internal false} {corp.example true} {64.100.in-addr.arpa true} {65.100.in-addr.arpa true}]",
		"SetLinkDefaultRoute 7 false", "SetLinkLLMNR 7 no", "SetLinkMulticastDNS 7 no", "SetLinkDNSSEC 7 no", "SetLinkDNSOverTLS 7 no",
		"FlushCaches",
	}
	if !slices.Equal(b.calls, want) {
		t.Errorf("calls\n%s\nwant\n%s", strings.Join(b.calls, "\n"), strings.Join(want, "\n"))
	}
	if want := []string{"nameserver 100.100.100.100 on weft0", "search weft.internal", "names below corp.example", "reverse lookups (2 zones)"}; !slices.Equal(applied, want) {
		t.Errorf("applied %q, want %q", applied, want)
	}
	b.calls = nil
	all := testConfig
	all.Default = true
	if _, err := r.set(context.Background(), all); err != nil || !strings.Contains(b.calls[1], "{. true}]") || b.calls[2] != "SetLinkDefaultRoute 7 true" {
		t.Errorf("%v: %q", err, b.calls)
	}
	b.calls = nil
	if err := r.unset(context.Background()); err != nil || !slices.Equal(b.calls, []string{"RevertLink 7", "FlushCaches"}) {
		t.Errorf("%v: %q", err, b.calls)
	}
	// The interface is gone, or another one has its name.
	b.calls = nil
	r.index = func(string) (int, error) { return 8, nil }
	if err := r.unset(context.Background()); err != nil || len(b.calls) != 0 {
		t.Errorf("%v: %q", err, b.calls)
	}
	if stands(r) {
		t.Error("intact is true for another interface")
	}
}

// The LAN's search domains come first, whichever LAN it is now.
func TestResolvedSearchLast(t *testing.T) {
	lan := "fritz.box"
	b := &fakeBus{answers: map[string][]any{"FlushCaches": nil, "GetLink": {dbus.ObjectPath("/org/freedesktop/resolve1/link/_7")}, "DNS": {dbus.MakeVariant([][]any{{int32(2), []byte{100, 100, 100, 100}}})}}}
	domains := func() []any {
		return []any{dbus.MakeVariant([][]any{{int32(7), "weft.internal", false}, {int32(2), lan, false}, {int32(2), "corp.example", true}, {int32(0), "../x", false}, {int32(0)}})}
	}
	r := fakeResolved(b)
	c := testConfig
	c.SearchLast = true
	for _, lan = range []string{"fritz.box", "cafe.example"} {
		b.answers["Domains"] = domains()
		if r.addr.IsValid() {
			if ok, err := r.intact(context.Background()); ok || err == nil {
				t.Errorf("another LAN: intact %v, %v", ok, err)
			}
		}
		b.calls = nil
		if _, err := r.set(context.Background(), c); err != nil {
			t.Fatal(err)
		}
		if want := "SetLinkDomains 7 [{" + lan + " false} {weft.internal false} {corp.example true} {64.100.in-addr.arpa true} {65.100.in-addr.arpa true}]"; !slices.Contains(b.calls, want) {
			t.Errorf("calls %q, want %q", b.calls, want)
		}
		if ok, err := r.intact(context.Background()); !ok || err != nil {
			t.Errorf("intact %v, %v", ok, err)
		}
	}
}

// A resolved that accepts 32 domains works without the reverse zones.
func TestResolvedTooManyDomains(t *testing.T) {
	for _, tooLong := range []error{
		dbus.Error{Name: "System.Error.E2BIG", Body: []any{"Argument list too long"}},
		fmt.Errorf("SetLinkDomains: %w", &dbus.Error{Name: "org.freedesktop.DBus.Error.Failed", Body: []any{"Argument list too long"}}),
	} {
		b := &limitedBus{fakeBus{answers: map[string][]any{"FlushCaches": nil}}, tooLong}
		r := newResolved(b, "weft0", quiet())
		r.index = func(string) (int, error) { return 7, nil }
		applied, err := r.set(context.Background(), testConfig)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(b.calls, "SetLinkDomains 7 [{weft.internal false} {corp.example true}]") {
			t.Errorf("calls %q", b.calls)
		}
		if !slices.Contains(applied, "no reverse lookups: systemd-resolved accepts too few domains") {
			t.Errorf("applied %q", applied)
		}
	}
}

type limitedBus struct {
	fakeBus
	err error
}

func (b *limitedBus) call(ctx context.Context, dest, path, method string, args ...any) ([]any, error) {
	if strings.HasSuffix(method, ".SetLinkDomains") && len(args[1].([]linkDomain)) > 2 {
		return nil, b.err
	}
	return b.fakeBus.call(ctx, dest, path, method, args...)
}

// Settings that an older resolved lacks are skipped, unless they are required.
func TestResolvedOld(t *testing.T) {
	unknown := dbus.Error{Name: "org.freedesktop.DBus.Error.UnknownMethod"}
	b := &fakeBus{errors: map[string]error{"SetLinkDefaultRoute": unknown, "SetLinkDNSOverTLS": unknown, "FlushCaches": unknown}}
	if _, err := fakeResolved(b).set(context.Background(), testConfig); err != nil {
		t.Errorf("set: %v", err)
	}
	denied := &fakeBus{errors: map[string]error{"SetLinkDNS": fmt.Errorf("SetLinkDNS: %w", dbus.Error{Name: "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"})}}
	if _, err := fakeResolved(denied).set(context.Background(), testConfig); err == nil || !strings.Contains(err.Error(), "polkit") || !strings.Contains(err.Error(), "--os-dns=off") {
		t.Errorf("without rights: %v", err)
	}
	for _, must := range []string{"SetLinkDNS", "SetLinkDomains"} {
		b := &fakeBus{errors: map[string]error{must: unknown}}
		if _, err := fakeResolved(b).set(context.Background(), testConfig); err == nil {
			t.Errorf("%s fails without an error", must)
		}
	}
}

// Our own address and resolved's are not base resolvers.
func TestResolvedBase(t *testing.T) {
	b := &fakeBus{answers: map[string][]any{"DNS": {dbus.MakeVariant([][]any{
		{int32(7), int32(2), []byte{100, 100, 100, 100}},
		{int32(2), int32(2), []byte{192, 168, 1, 1}},
		{int32(3), int32(10), []byte{0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}},
		{int32(3), int32(2), []byte{192, 168, 1, 1}},
		{int32(3), int32(2), []byte{127, 0, 0, 53}},
		{int32(3), int32(2), []byte{100, 100, 100, 100}},
		{int32(3), int32(2), []byte{1, 2, 3}},
		{int32(3)},
	})}}}
	r := fakeResolved(b)
	r.addr, r.ifindex = testConfig.Nameserver, 7
	got, err := r.base(context.Background())
	if want := ports("192.168.1.1:53", "[fe80::1%3]:53"); err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
	for _, odd := range []any{nil, "x", dbus.MakeVariant("x"), dbus.MakeVariant([]string{"x"})} {
		b.answers["DNS"] = []any{odd}
		if got, _ := r.base(context.Background()); len(got) != 0 {
			t.Errorf("%v gives %v", odd, got)
		}
	}
}

func TestNetworkManager(t *testing.T) {
	conn := settings{
		"connection": {"id": dbus.MakeVariant("weft0")},
		"ipv4":       {"method": dbus.MakeVariant("manual"), "addresses": dbus.MakeVariant([][]uint32{{1}})},
	}
	b := &fakeBus{answers: map[string][]any{
		"GetDeviceByIpIface":   {dbus.ObjectPath("/org/freedesktop/NetworkManager/Devices/5")},
		"GetAppliedConnection": {conn, uint64(3)},
		"Reapply":              nil,
		"Configuration": {dbus.MakeVariant([]map[string]dbus.Variant{
			{"interface": dbus.MakeVariant("weft0"), "nameservers": dbus.MakeVariant([]string{"100.100.100.100"})},
			{"interface": dbus.MakeVariant("wlan0"), "nameservers": dbus.MakeVariant([]string{"192.168.1.1", "x"})},
		})},
	}}
	n := &networkManager{bus: b, iface: "weft0", log: quiet(), sub: fakeResolved(b)}
	applied, err := n.set(context.Background(), testConfig)
	if err != nil || len(applied) != 3 {
		t.Fatalf("%q, %v", applied, err)
	}
	v4 := conn["ipv4"]
	if got := fmt.Sprint(v4["dns-search"].Value()); got != "[weft.internal ~corp.example ~64.100.in-addr.arpa ~65.100.in-addr.arpa]" {
		t.Errorf("dns-search %s", got)
	}
	if got := v4["dns"].Value(); fmt.Sprint(got) != "[1684300900]" { // 100.100.100.100 in either byte order
		t.Errorf("dns %v", got)
	}
	if _, ok := v4["addresses"]; ok || v4["method"].Value() != "manual" || conn["ipv6"]["dns"].Value() != nil {
		t.Errorf("connection %v", conn)
	}
	base, err := n.base(context.Background())
	if err != nil || !slices.Equal(base, ports("192.168.1.1:53")) {
		t.Errorf("base %v, %v", base, err)
	}
	withDNS(conn, Config{})
	if _, ok := v4["dns"]; ok {
		t.Errorf("not removed: %v", v4)
	}
	b.answers["GetAppliedConnection"] = []any{"x", 1}
	if _, err := n.set(context.Background(), testConfig); err == nil {
		t.Error("an invalid connection is accepted")
	}
}

// fakeResolvconf is a resolvconf that stores records and builds resolv.conf as Debian's
// does.
func fakeResolvconf(m machine, dir string, calls *[]string) runner {
	return func(_ context.Context, stdin, name string, args ...string) (string, error) {
		*calls = append(*calls, strings.Join(append([]string{name}, args...), " "))
		if args[0] == "-u" {
			return "", nil
		}
		record := m.path(filepath.Join(dir, args[len(args)-1]))
		if slices.Contains(args, "-d") {
			os.Remove(record)
		} else if err := os.WriteFile(record, []byte(stdin), 0o644); err != nil {
			return "", err
		}
		all, _ := filepath.Glob(m.path(dir + "/*"))
		slices.SortFunc(all, func(a, b string) int { // lo first, then tun
			rank := func(s string) int {
				return strings.Index("lo tun eth", strings.TrimRight(filepath.Base(s)[:3], ".0w-"))
			}
			return rank(a) - rank(b)
		})
		out := "# generated by resolvconf(8)\n"
		for _, r := range all {
			b, _ := os.ReadFile(r)
			out += string(b)
			if strings.Contains(out, "nameserver 127.") {
				break
			}
		}
		return "", os.WriteFile(m.path("etc/resolv.conf"), []byte(out), 0o644)
	}
}

func TestResolvconf(t *testing.T) {
	ctx := context.Background()
	for _, open := range []bool{false, true} {
		m := newMachine(t)
		dir := recordDirs[0]
		wantCall, wantRecord := "resolvconf -a tun-weft.weft0", "nameserver 100.100.100.100\nnameserver 127.100.100.100\nsearch weft.internal\n"
		if open {
			dir, wantCall, wantRecord = recordDirs[1], "resolvconf -m 0 -x -a tun-weft.weft0", "nameserver 100.100.100.100\nsearch weft.internal\n"
		}
		os.MkdirAll(m.path(dir), 0o755)
		if !open {
			m.write(dir+"/eth0.dhcp", "nameserver 192.168.1.1\nnameserver 100.100.100.100\n")
		} else {
			m.write("run/resolvconf/interfaces/eth0.dhcp", "") // -x hides the others
			m.write("run/resolvconf/interfaces/eth0.ra", "# none\n")
		}
		var calls []string
		r := &resolvconf{root: m.root, iface: "weft0", open: open, run: fakeResolvconf(m, dir, &calls), also: func(string) {}, undone: func(bool) {}}
		applied, err := r.set(ctx, testConfig)
		if err != nil || len(applied) != 2 {
			t.Fatalf("open %v: %q, %v", open, applied, err)
		}
		if calls[0] != wantCall || m.read(dir+"/tun-weft.weft0") != wantRecord {
			t.Errorf("call %q, record %q", calls[0], m.read(dir+"/tun-weft.weft0"))
		}
		if !stands(r) {
			t.Error("not intact")
		}
		if base, err := r.base(ctx); !open && !slices.Equal(base, ports("192.168.1.1:53")) || err != nil {
			t.Errorf("base %v, %v", base, err)
		}
		// After a kill, Restore finds the record.
		l := &linux{root: m.root, log: quiet(), bus: &fakeBus{}, run: r.run}
		did, err := l.restore(ctx, "")
		if err != nil || len(did) != 1 || m.read(dir+"/tun-weft.weft0") != "" {
			t.Errorf("restore: %q, %v", did, err)
		}
		if stands(r) {
			t.Error("intact without its record")
		}
		// resolvconf was killed after it removed the record: the next process, be it a
		// stop hook or the daemon, has resolv.conf rebuilt once.
		l.run = func(context.Context, string, string, ...string) (string, error) { return "", errors.New("killed") }
		b, err := l.backend(map[bool]Mode{false: ModeResolvconf, true: ModeOpenresolv}[open], "weft0")
		if err != nil {
			t.Fatal(err)
		}
		stop := l.watch(func(event) {})
		if err := b.unset(ctx); err == nil {
			t.Error("unset: no error")
		}
		stop()
		calls = nil
		half := errors.New("killed")
		l.run = func(ctx context.Context, stdin, name string, args ...string) (string, error) {
			r.run(ctx, stdin, name, args...)
			return "", half
		}
		for _, run := range []runner{l.run, r.run, r.run} {
			l.run = run
			if did, err := l.restore(ctx, ""); len(did) != 0 || (err != nil) != (half != nil) {
				t.Errorf("restore: %q, %v", did, err)
			}
			half = nil
		}
		if want := []string{"resolvconf -u", "resolvconf -u"}; !slices.Equal(calls, want) {
			t.Errorf("calls %q, want %q", calls, want)
		}
		calls = nil
		if err := r.unset(ctx); err != nil || !slices.Equal(calls, []string{"resolvconf -u"}) {
			t.Errorf("unset once more: %q, %v", calls, err)
		}
	}
}

// A service's umask does not affect the files that resolvconf makes, and a program may
// run for as long as its caller's context.
func TestRunProgram(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	if out, err := runProgram(t.Context(), "", "sh", "-c", "umask"); err != nil || out != "0022\n" {
		t.Errorf("umask %q, %v", out, err)
	}
	if out, err := runProgram(t.Context(), "in", "sh", "-c", `cat; echo "$1"`, "sh", "a b"); err != nil || out != "ina b\n" {
		t.Errorf("%q, %v", out, err)
	}
	if _, err := runProgram(t.Context(), "", "sh", "-c", "echo so >&2; exit 3"); err == nil || !strings.Contains(err.Error(), "exit status 3: so") {
		t.Errorf("%v", err)
	}
	if _, err := runProgram(t.Context(), "", "no-such-program"); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := runProgram(ctx, "", "sleep", "60"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

// Where resolvconf puts another resolver before ours, names would go there: then the
// file is written directly.
func TestResolvconfBehind(t *testing.T) {
	m := newMachine(t)
	os.MkdirAll(m.path(recordDirs[0]), 0o755)
	m.write(recordDirs[0]+"/lo.dnsmasq", "nameserver 127.0.0.1\n")
	var calls []string
	r := &resolvconf{root: m.root, iface: "weft0", run: fakeResolvconf(m, recordDirs[0], &calls), also: func(string) {}, undone: func(bool) {}}
	_, err := r.set(context.Background(), testConfig)
	var no *useDirectError
	if !errors.As(err, &no) || !strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("set: %v", err)
	}
	if m.read(recordDirs[0]+"/tun-weft.weft0") != "" {
		t.Error("the record was not removed")
	}
}
