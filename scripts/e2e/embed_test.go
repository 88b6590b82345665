//go:build e2e

package e2e

import (
	"strings"
	"testing"
	"time"

	"weft/scripts/e2e/lab"
)

// A Go program dials and listens with a node of its own.
func TestEmbedded(t *testing.T) {
	t.Parallel()
	m := lab.NewMesh(t, bin)
	home := m.Home("emb")
	p := home.StartEnv(lab.Nobody, []string{"WEFT_TOKEN=" + m.Server.NewKey().Token}, "sh", "-c", "sleep 60 | exec embed "+m.Mkdir("embedded")+" http://kitchen-pi/from-within")
	m.Until(15*time.Second, "the program has fetched the page", func() bool {
		return strings.Contains(p.Out(), "kitchen GET /from-within")
	})
	if body, err := m.Laptop.Get("http://embedded/", 5*time.Second); err != nil || !strings.Contains(body, "from within") {
		t.Errorf("the laptop got %q, %v", body, err)
	}
}
