package ops

import (
	"context"
	"slices"
	"strings"
)

// Facet is a value, such as a tag, and how many devices have it.
type Facet struct {
	Value string
	Count int // devices
}

// Facets are the values by which a list of devices can be filtered, those that most devices
// have first. Versions are sorted newest first. Relays are all relays, sorted by name.
type Facets struct {
	Tags, Owners, Systems, Versions []Facet
	Relays                          []string
}

// maxFacet bounds the number of values of each kind.
const maxFacet = 50

// DeviceFacets returns the values of the devices that the actor may see.
func (s *Service) DeviceFacets(ctx context.Context, a Actor) (f Facets, err error) {
	if err := opDeviceRead.asks(a); err != nil {
		return f, err
	}
	held, err := s.deviceRows(ctx)
	if err != nil {
		return f, err
	}
	tags, owners, systems, versions := map[string]int{}, map[string]int{}, map[string]int{}, map[string]int{}
	seen := sees(a)
	for _, n := range held.rows {
		if !seen(n) {
			continue
		}
		for _, t := range ShownTags(n.Tags) {
			tags[t]++
		}
		owners[n.User]++
		system, _, _ := strings.Cut(n.OS, "/")
		systems[SystemName(system)]++
		versions[n.Software]++
	}
	f.Tags, f.Owners, f.Systems, f.Versions = facets(tags), facets(owners), facets(systems), facets(versions)
	slices.SortFunc(f.Versions, func(a, b Facet) int { return CompareVersions(b.Value, a.Value) })
	f.Relays = append(f.Relays, relayName)
	for _, r := range s.index.allRelays() {
		f.Relays = append(f.Relays, r.Name)
	}
	slices.Sort(f.Relays)
	f.Relays = f.Relays[:min(len(f.Relays), maxFacet)]
	return f, nil
}

func facets(counts map[string]int) []Facet {
	list := make([]Facet, 0, len(counts))
	for v, n := range counts {
		if v != "" {
			list = append(list, Facet{v, n})
		}
	}
	slices.SortFunc(list, func(a, b Facet) int {
		if a.Count != b.Count {
			return b.Count - a.Count
		}
		return strings.Compare(a.Value, b.Value)
	})
	return list[:min(len(list), maxFacet)]
}
