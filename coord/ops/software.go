package ops

import (
	"context"
	"slices"
	"strings"
	"time"

	"weft/coord/store"
)

// Software is how many devices use one version of weft.
type Software struct {
	Version string
	Devices int
}

// SoftwareInUse counts the devices that the actor may see by the version of weft that they last
// reported. The version of most devices comes first.
func (s *Service) SoftwareInUse(ctx context.Context, a Actor) ([]Software, error) {
	if err := opDeviceRead.asks(a); err != nil {
		return nil, err
	}
	count := map[string]int{}
	err := s.store.Read(ctx, func(r *store.Reader) error {
		return r.EachSoftware(s.network, func(software, class string, devices int) error {
			user, tags := store.ClassOf(class)
			if opDeviceRead.authorize(a, target{kind: "device", owner: user, tags: tags}) == nil {
				count[software] += devices
			}
			return nil
		})
	})
	list := make([]Software, 0, len(count))
	for version, n := range count {
		list = append(list, Software{version, n})
	}
	slices.SortFunc(list, func(a, b Software) int {
		if a.Devices != b.Devices {
			return b.Devices - a.Devices
		}
		return strings.Compare(a.Version, b.Version)
	})
	return list, err
}

// Started returns when this process opened the data directory.
func (s *Service) Started() time.Time { return s.started }
