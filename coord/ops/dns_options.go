package ops

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"weft/coord/store"
)

// Option is a DNS option that `weft-server dns set` can set.
type Option struct {
	Name string
	Help string
	set  func(*store.DNS, string) error
	get  func(*store.DNS) string
}

// DNSOptions are the options, in the order in which they are shown.
var DNSOptions = []Option{
	{"ttl", "TTL of the network's own answers in seconds, 1 to 60",
		func(d *store.DNS, v string) (err error) { d.TTL, err = number(v, 1, 60); return err },
		func(d *store.DNS) string { return strconv.Itoa(cmp.Or(d.TTL, 5)) }},
	{"alias-days", "days for which a former name still leads to its device, 0 to 365",
		func(d *store.DNS, v string) (err error) { d.AliasDays, err = number(v, 0, maxAliasDays); return err },
		func(d *store.DNS) string { return strconv.Itoa(d.AliasDays) }},
	flag("lan-names-win", "short names of a device's own LAN come before the network's", func(d *store.DNS) *bool { return &d.LANNamesWin }),
	flag("stop-rebinding", "remove private addresses from answers for public names", func(d *store.DNS) *bool { return &d.StopRebinding }),
	{"rebinding-allowed", "names that may nevertheless answer with private addresses, separated by commas",
		func(d *store.DNS, v string) error { d.RebindingAllowed = words(v); return nil },
		func(d *store.DNS) string { return strings.Join(d.RebindingAllowed, ",") }},
	flag("keep-browsers", "ask browsers not to use their own DNS over HTTPS", func(d *store.DNS) *bool { return &d.KeepBrowsers }),
	{"serve-stale", "answer from expired data while all nameservers fail",
		func(d *store.DNS, v string) (err error) { on, err := onOff(v); d.NoStale = !on; return err },
		func(d *store.DNS) string { return onOffText(!d.NoStale) }},
	{"portal-url", "http:// address that answers 204 on an open network, to notice captive portals; empty for none",
		func(d *store.DNS, v string) error { d.PortalURL = strings.TrimSpace(v); return nil },
		func(d *store.DNS) string { return d.PortalURL }},
	flag("query-log", "devices log each query, with hashed names", func(d *store.DNS) *bool { return &d.QueryLog }),
}

func flag(name, help string, at func(*store.DNS) *bool) Option {
	return Option{name, help,
		func(d *store.DNS, v string) (err error) { *at(d), err = onOff(v); return err },
		func(d *store.DNS) string { return onOffText(*at(d)) }}
}

// Value returns the option's present value in the form that `weft-server dns set` accepts.
func (o Option) Value(d store.DNS) string { return o.get(&d) }

func optionNames() string {
	var l []string
	for _, o := range DNSOptions {
		l = append(l, o.Name)
	}
	return strings.Join(l, ", ")
}

func number(text string, low, high int) (int, error) {
	n, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil || n < low || n > high {
		return 0, fmt.Errorf("want a number from %d to %d", low, high)
	}
	return n, nil
}

func onOff(text string) (bool, error) {
	switch strings.ToLower(strings.TrimSpace(text)) {
	case "on", "true", "yes", "1":
		return true, nil
	case "off", "false", "no", "0":
		return false, nil
	}
	return false, errors.New("want on or off")
}

func onOffText(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// words splits at commas and spaces.
func words(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' || r == '\r' || r == '\t' })
}
