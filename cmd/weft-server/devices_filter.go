package main

import (
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"weft/coord/ops"
	"weft/overlay/hostname"
)

// deviceFilter selects the devices that match every filter that is set.
type deviceFilter struct {
	online, offline bool
	tags            []string // any of them
	user            string
	search          string
	below           string // a version
	filter, sort    string // for the server
}

func (w *deviceFilter) flags(f *pflag.FlagSet) {
	f.BoolVar(&w.online, "online", false, "only devices that are online")
	f.BoolVar(&w.offline, "offline", false, "only devices that are offline")
	f.StringSliceVar(&w.tags, "tag", nil, "only devices with this tag (repeatable: with any of them)")
	f.StringVar(&w.user, "user", "", "only devices of this user")
	f.StringVar(&w.search, "search", "", "only devices with this text in their name, address or id")
	f.StringVar(&w.below, "version-below", "", "only devices whose weft is older than this version, such as 1.2.0")
	f.StringVar(&w.filter, "filter", "", "only devices that fit this, such as 'tag:camera is:offline' (see above)")
	f.StringVar(&w.sort, "sort", "", "order: name, status, tags, address, relay, version, owner, system or seen; reversed with a minus before it")
	for _, name := range []string{"filter", "sort", "online", "offline", "tag", "user", "search", "version-below"} {
		f.SetAnnotation(name, noEnv, nil)
	}
}

// of returns the devices that match, and changes list. The result is not nil.
func (w *deviceFilter) of(list []ops.Device) []ops.Device {
	return slices.DeleteFunc(list, func(d ops.Device) bool { return !w.fits(d) })
}

func (w *deviceFilter) fits(d ops.Device) bool {
	switch {
	case w.online && !d.Online, w.offline && d.Online, w.user != "" && w.user != d.User:
		return false
	case len(w.tags) > 0 && !slices.ContainsFunc(w.tags, func(t string) bool { return slices.Contains(d.Tags, strings.TrimPrefix(t, "tag:")) }):
		return false
	case w.below != "" && ops.CompareVersions(d.Software, w.below) >= 0:
		return false
	}
	return w.search == "" || found(d, w.search)
}

// found reports whether a word occurs in one of a device's names, in an address, or in its id.
func found(d ops.Device, word string) bool {
	words := []string{strings.TrimSuffix(strings.ToLower(strings.TrimSpace(word)), ".")}
	if ascii, err := hostname.ASCII(words[0]); err == nil {
		words = append(words, ascii)
	}
	known := []string{d.FQDN, d.Title, d.Hostname, d.IPv4.String(), d.IPv6.String(), d.ID.String()}
	for _, a := range d.Aliases {
		known = append(known, a.Name)
	}
	return slices.ContainsFunc(known, func(k string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(strings.ToLower(k), w) })
	})
}
