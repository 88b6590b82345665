package console

import (
	"errors"
	"slices"

	"weft/coord/ops"
)

// sectionPage is a page of a section: a tab, for who may do an operation.
type sectionPage struct {
	text, href string
	see        string   // the operation, "" for everybody
	templates  []string // that draw it
}

var networkPages = []sectionPage{
	{"Overview", "/network", "relay.read", []string{"network", "relay"}},
	{"DNS names", "/network/dns", "dns.read", []string{"dns"}},
	{"Resolvers", "/network/dns/routes", "dns.read", []string{"dnsroutes"}},
	{"Try a name", "/network/dns/try", "dns.read", []string{"dnstry"}},
	{"Keys", "/network/keys", "", []string{"keys", "newkey"}},
}

var settingsPages = []sectionPage{
	{"This network", "/settings", "network.show", []string{"settings"}},
	{"Sign-in", "/settings/sign-in", "sign-in.read", []string{"signinsettings", "provider"}},
	{"Webhooks", "/settings/webhooks", "webhook.read", []string{"webhooks", "webhook", "newwebhook"}},
	{"API tokens", "/settings/tokens", "token.read", []string{"tokens", "newtoken"}},
	{"Releases", "/settings/releases", "network.show", []string{"releases"}},
}

// sees reports whether an actor sees a page.
func (p sectionPage) sees(a ops.Actor) bool {
	return p.see == "" || a.May(p.see) && (p.see != "webhook.read" || len(a.Tags) == 0)
}

// pagesOf are the pages of a section that an actor sees. here is the template of one.
func pagesOf(a ops.Actor, pages []sectionPage, here string) (tabs []tab) {
	for _, p := range pages {
		if p.sees(a) {
			tabs = append(tabs, tab{Text: p.text, Href: p.href, Here: slices.Contains(p.templates, here)})
		}
	}
	return tabs
}

// hide turns "not allowed" into "not there": a page that somebody may not see does not
// exist for them.
func hide(err error) error {
	if isForbidden(err) {
		return ops.ErrNotFound
	}
	return err
}

// only is hide for a page that is there for who may do an operation.
func only(a ops.Actor, operation string) error {
	if !a.May(operation) {
		return ops.ErrNotFound
	}
	return nil
}

func isForbidden(err error) bool { return errors.Is(err, ops.ErrForbidden) }
