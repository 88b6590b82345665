package proxy

import (
	"context"
	"slices"
	"testing"

	"weft/overlay/status"
)

func TestSearchList(t *testing.T) {
	for _, c := range []struct {
		conf, host string
		want       []string
	}{
		{"", "laptop", nil},
		{"nameserver 192.0.2.1\n", "laptop.corp.example", []string{"corp.example"}},
		{"search fritz.box\n", "laptop.corp.example", []string{"fritz.box"}},
		{"domain a.example\nsearch b.example  c.example.\n", "laptop", []string{"b.example", "c.example"}},
		{"search .\n", "laptop", nil},
		{"#search x\n; search y\nsearch\n", "laptop", nil},
		{"search a b c d e f g h", "laptop", []string{"a", "b", "c", "d", "e", "f"}},
	} {
		if got := searchList(c.conf, c.host); !slices.Equal(got, c.want) {
			t.Errorf("%q on %s: %q, want %q", c.conf, c.host, got, c.want)
		}
	}
}

// A short name that is not a device leaves the machine only as a name of this network:
// never as a bare label, and never below our own suffix.
func TestFindLocal(t *testing.T) {
	var asked []string
	find := func(label string, search ...string) string {
		asked = nil
		return findLocal(t.Context(), label, "weft.internal", search,
			func(_ context.Context, name string) bool { return name == "printer" },
			func(_ context.Context, name string) bool {
				asked = append(asked, name)
				return name == "nas.fritz.box."
			})
	}
	for _, c := range []struct {
		label, want string
		search      []string
		asked       []string
	}{
		{"printer", "printer", []string{"fritz.box"}, nil},
		{"nas", "nas.fritz.box.", []string{"weft.internal", "lan", "fritz.box", "more"}, []string{"nas.lan.", "nas.fritz.box."}},
		{"kitchn-pi", "", []string{"Weft.Internal"}, nil},
		{"kitchn-pi", "", nil, nil},
		{"kitchn-pi", "", []string{"fritz.box"}, []string{"kitchn-pi.fritz.box."}},
	} {
		if got := find(c.label, c.search...); got != c.want || !slices.Equal(asked, c.asked) {
			t.Errorf("%s, search %q: %q, asked %q; want %q, %q", c.label, c.search, got, asked, c.want, c.asked)
		}
	}
}

// A typed name goes to the overlay under the device's name there, or ends with the
// node's own error.
func TestRoute(t *testing.T) {
	node := &fakeNode{}
	local := ""
	p := New(Config{Node: node, local: func(context.Context, string, string) string { return local }})
	defer p.Close()
	for host, want := range map[string]string{
		"Kitchen-Pi": "Kitchen-Pi", "kitchen-pi.": "kitchen-pi.", "KÜCHE.weft.internal": "xn--kche-0ra.weft.internal", "[fd00:77::2]": "fd00:77::2",
	} {
		if to, overlay, err := p.route(t.Context(), host, 80); to != want || !overlay || err != nil {
			t.Errorf("%s: %q, %v, %v; want %q in the overlay", host, to, overlay, err, want)
		}
	}
	if to, overlay, err := p.route(t.Context(), "bücher.example", 80); to != "xn--bcher-kva.example" || overlay || err != nil {
		t.Errorf("%q, %v, %v", to, overlay, err)
	}
	if _, _, err := p.route(t.Context(), "kitchn-pi", 80); status.KindOf(err) != status.KindUnknown || err.Error() != "there is no device kitchn-pi" {
		t.Errorf("a typo: %v", err)
	}
	local = "printer.fritz.box."
	if to, overlay, err := p.route(t.Context(), "printer", 80); to != local || overlay || err != nil {
		t.Errorf("%q, %v, %v", to, overlay, err)
	}
	if _, overlay, err := p.route(t.Context(), "elsewhere", 80); overlay || status.KindOf(err) != status.KindUnavailable {
		t.Errorf("the server is away: %v, %v", overlay, err)
	}
}
