package console

import (
	"fmt"
	"math"
	"net/http"
	"time"

	"weft/coord/ops"
)

// styleView is what the page of all parts draws them with, once for each theme.
type styleView struct {
	Themes            []string
	Kinds, Paths      []string
	Tags              []string
	Spark, Gap, Blank sparkView
	Now, Never        stamp
	Long              string
	Found             paletteView
}

// style shows every part of pages in every state, to those who change them. In programs of a
// release there is no such page.
func (c *Console) style(v *visit) error {
	if !c.showStyle {
		return ops.ErrNotFound
	}
	ms := func(f float64) string { return fmt.Sprintf("%.0f ms", f) }
	return c.render(v, http.StatusOK, "style", styleView{
		Themes: []string{"light", "dark"},
		Kinds:  []string{"online", "stale", "offline", "attention", "pending"},
		Paths:  []string{"direct", "udp", "relay"},
		Tags:   []string{"sensor", "site-berlin"},
		Spark:  spark("Latency", []float64{12, 14, 13, 48, 15, 14, 13, 12, 16}, ms),
		Gap:    spark("Latency", []float64{12, 14, math.NaN(), 48, 15, 14}, ms),
		Blank:  spark("Latency", nil, ms),
		Now:    c.stamp(c.now().Add(-3 * time.Minute)),
		Never:  c.stamp(time.Time{}),
		Long:   "a-device-whose-name-is-as-long-as-a-name-may-be-in-this-network",
		Found: paletteView{Text: "k", Kinds: []foundKind{
			{"Devices", []found{{Text: "kitchen-pi", Note: "100.64.0.7", Href: "#", Status: "online"}, {Text: "Küche 厨房", Note: "100.64.0.8", Href: "#", Status: "offline"}}},
			{"Actions", []found{{Text: "New key", Href: "#", Icon: "plus"}}},
		}},
	})
}
