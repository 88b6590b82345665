package console

import "weft/coord/ops"

// section is one of the places that the console is made of.
type section struct {
	ID, Text, Href string
	Far            bool // under "More" where there is little room
}

// navOf is the section of a page, by the name of its template.
var navOf = map[string]string{
	"devices": "devices", "bulk": "devices", "device": "devices", "replace": "devices", "add": "devices", "approve": "devices", "join": "devices",
	"people": "people", "person": "people", "invite": "people", "groups": "people", "identities": "people",
	"access": "access", "policy": "access", "policytests": "access", "policytags": "access", "policyhistory": "access",
	"activity": "activity", "introductions": "activity", "verify": "activity",
	"network": "network", "relay": "network", "dns": "network", "dnsroutes": "network", "dnstry": "network", "keys": "network", "newkey": "network",
	"settings": "settings", "signinsettings": "settings", "provider": "settings", "webhooks": "settings", "webhook": "settings", "newwebhook": "settings",
	"tokens": "settings", "newtoken": "settings", "releases": "settings",
}

// sectionsOf is what an actor has a use for: nothing that would only refuse.
func sectionsOf(a ops.Actor) []section {
	list := []section{{ID: "devices", Text: "Devices", Href: "/devices"}}
	if a.ReadsPeople() {
		list = append(list, section{ID: "people", Text: "People", Href: "/people", Far: true})
	}
	if a.MaySome("policy.read") {
		list = append(list, section{ID: "access", Text: "Access", Href: "/access"})
	}
	if a.ReadsAudit() {
		list = append(list, section{ID: "activity", Text: "Activity", Href: "/activity"})
	}
	return append(list,
		section{ID: "network", Text: "Network", Href: pagesOf(a, networkPages, "")[0].Href, Far: true}, // who sees no other page sees the keys
		section{ID: "settings", Text: "Settings", Href: "/settings", Far: true})
}

// partsOf is what a section has beside the page that is shown, if it is more than one.
func partsOf(a ops.Actor, name string) tabsView {
	if name == "people" || name == "groups" || name == "identities" {
		return tabsView{Name: "People", List: []tab{{Text: "People", Href: "/people", Here: name == "people"}, {Text: "Groups", Href: "/people/groups", Here: name == "groups"}, {Text: "Waiting", Href: "/people/waiting", Here: name == "identities"}}}
	}
	view := tabsView{}
	switch navOf[name] {
	case "network":
		view = tabsView{Name: "Network", List: pagesOf(a, networkPages, name)}
	case "settings":
		view = tabsView{Name: "Settings", List: pagesOf(a, settingsPages, name)}
	}
	if len(view.List) < 2 {
		return tabsView{}
	}
	return view
}
