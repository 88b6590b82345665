package console

import (
	"strings"

	"golang.org/x/net/idna"
)

// UnicodeName is a label as people write it: of the A-label "xn--kche-0ra" it is
// "küche". What is no A-label, or a damaged one, stays as it is.
func UnicodeName(label string) string {
	if !strings.HasPrefix(label, "xn--") {
		return label
	}
	u, err := idna.Lookup.ToUnicode(label)
	if err != nil || u == "" {
		return label
	}
	return u
}

// UnicodeDomain does the same with each label of a name.
func UnicodeDomain(name string) string {
	labels := strings.Split(name, ".")
	for i, l := range labels {
		labels[i] = UnicodeName(l)
	}
	return strings.Join(labels, ".")
}
