package console

import (
	"slices"
	"strings"

	"weft/coord/ops"
)

// filterGroup is what a list can be narrowed by, of one kind.
type filterGroup struct {
	Name  string
	Items []filterItem
	More  string // how to ask for what is not here, "" for nothing
}

// filterItem leads to the list with one more term, or without it if it holds.
type filterItem struct {
	Text, Href string
	Count      string
	Here       bool
}

// filters adds what the list is narrowed by, and what it can be narrowed by.
func (c *Console) filters(v *visit, view *devicesView, query ops.DeviceQuery) error {
	query.Offset = 0
	f, err := ops.ParseDeviceFilter(query.Filter)
	if err != nil {
		f = ops.DeviceFilter{} // the page says what is wrong
	}
	at := func(f ops.DeviceFilter) string {
		q := query
		q.Filter = f.String()
		return devicesPath(q)
	}
	for i, t := range f.Terms {
		if t.Key != "" {
			view.Chips = append(view.Chips, tab{Text: clean(termText(t)), Href: at(f.Without(i))})
		}
	}
	states := ops.DeviceFilter{Terms: slices.DeleteFunc(slices.Clone(f.Terms), func(t ops.FilterTerm) bool {
		return t.Key == "is" && !t.Not && slices.Contains([]string{"online", "offline", "attention"}, t.Value)
	})}
	now := ""
	for _, t := range f.Terms {
		if t.Key == "is" && !t.Not {
			now = t.Value
		}
	}
	for _, t := range []struct{ text, state string }{{"All", ""}, {"Online", "online"}, {"Offline", "offline"}, {"Attention", "attention"}} {
		to := states
		if t.state != "" {
			to = states.With(ops.FilterTerm{Key: "is", Value: t.state})
		}
		view.Tabs = append(view.Tabs, tab{t.text, at(to), t.state == now})
	}
	facets, err := c.ops.DeviceFacets(v.ctx(), v.actor)
	if err != nil {
		return err
	}
	group := func(name, more string, items ...filterItem) {
		if len(items) > 0 {
			view.Filters = append(view.Filters, filterGroup{name, items, more})
		}
	}
	item := func(text, key, value string, count int) filterItem {
		t := ops.FilterTerm{Key: key, Value: value}
		i := filterItem{Text: clean(text)}
		if count > 0 {
			i.Count = thousands(count)
		}
		if n := slices.IndexFunc(f.Terms, func(o ops.FilterTerm) bool { return o.String() == t.String() }); n >= 0 {
			i.Here, i.Href = true, at(f.Without(n))
		} else {
			i.Href = at(f.With(t))
		}
		return i
	}
	group("Status", "", item("Expired", "is", "expired", 0), item("Waiting for new rights", "is", "pending", 0), item("Ephemeral", "is", "ephemeral", 0), item("Missing a server address", "is", "unaware", 0))
	var items []filterItem
	for _, t := range facets.Tags {
		items = append(items, item("#"+t.Value, "tag", t.Value, t.Count))
	}
	group("Tag", more(items, "tag:NAME"), most(items)...)
	items = nil
	for _, o := range facets.Owners {
		items = append(items, item(o.Value, "owner", o.Value, o.Count))
	}
	if len(items) > 1 {
		group("Owner", more(items, "owner:NAME"), most(items)...)
	}
	items = nil
	for _, o := range facets.Systems {
		items = append(items, item(o.Value, "os", strings.ToLower(o.Value), o.Count))
	}
	group("System", more(items, "os:NAME"), most(items)...)
	items = nil
	for i, o := range facets.Versions {
		if i+1 < len(facets.Versions) && versionLike(o.Value) {
			items = append(items, item("Older than "+o.Value, "version", "<"+o.Value, 0))
		}
		items = append(items, item(o.Value, "version", o.Value, o.Count))
	}
	group("Version", more(items, "version:<1.2"), most(items)...)
	group("Last seen", "", item("Within an hour", "seen", "<1h", 0), item("More than a day ago", "seen", ">1d", 0), item("More than 7 days ago", "seen", ">7d", 0), item("More than 30 days ago", "seen", ">30d", 0), item("Never", "seen", "never", 0))
	if len(facets.Relays) > 1 {
		items = nil
		for _, r := range facets.Relays {
			items = append(items, item(r, "relay", r, 0))
		}
		group("Relay", more(items, "relay:NAME"), most(items)...)
	}
	return nil
}

// maxFilterItems is how many values of a kind a menu offers; others can be typed.
const maxFilterItems = 12

func most(items []filterItem) []filterItem { return items[:min(len(items), maxFilterItems)] }

func more(items []filterItem, typed string) string {
	if len(items) <= maxFilterItems {
		return ""
	}
	return typed
}

// versionLike reports whether a version can be compared with others.
func versionLike(s string) bool { return len(s) > 0 && s[0] >= '0' && s[0] <= '9' && len(s) <= 40 }

// termText is a term as a chip says it.
func termText(t ops.FilterTerm) string {
	text := t.Value
	list := strings.ReplaceAll(t.Value, ",", " or ")
	switch t.Key {
	case "is":
		text = map[string]string{"pending": "Waiting for new rights", "unaware": "Missing a server address"}[t.Value]
		if text == "" {
			text = strings.ToUpper(list[:1]) + list[1:]
		}
	case "tag":
		if text = "#" + strings.ReplaceAll(t.Value, ",", " or #"); t.Value == "" {
			text = "No tags"
		}
	case "owner":
		text = "Owner " + list
	case "os":
		text = "System " + list
	case "relay":
		text = "Relay " + list
	case "version":
		if bound, ok := strings.CutPrefix(t.Value, "<"); ok && !strings.HasPrefix(bound, "=") {
			text = "Older than " + bound
		} else {
			text = "Version " + t.Value
		}
	case "seen":
		switch {
		case t.Value == "never":
			text = "Never seen"
		case strings.HasPrefix(t.Value, "<"):
			text = "Seen within " + t.Value[1:]
		default:
			text = "Not seen for " + t.Value[1:]
		}
	}
	if t.Not {
		return "Not: " + text
	}
	return text
}
