package overlay

import (
	"log/slog"
	"math/big"
	"slices"
	"testing"
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/network"
	"weft/overlay/internal/state"
)

// The server's time is saved when the saved one is old, and when the node goes down. The
// time of a relay that runs alone is not saved.
func TestTimekeeper(t *testing.T) {
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	var held network.Holder
	var kept []string
	k := timekeeper{
		clock: cert.NewClock(time.Time{}, func() time.Time { return now }), held: &held, log: slog.New(slog.DiscardHandler),
		keep: func(file string) { kept = append(kept, file) },
	}
	expect := func(what string, writes bool, disk time.Time) {
		t.Helper()
		var want []string
		if writes {
			want = []string{state.IdentityFile}
		}
		if !slices.Equal(kept, want) {
			t.Errorf("%s: %q are to be written, want %q", what, kept, want)
		}
		if id := held.Identity(); id != nil && !id.ServerTime.Equal(disk) {
			t.Errorf("%s: the identity says %v, want %v", what, id.ServerTime, disk)
		}
		kept = nil
	}
	k.save(0)
	expect("nobody was heard", false, time.Time{})
	k.server(now)
	if expect("in no network", false, time.Time{}); k.answered() == nil {
		t.Error("nothing says that the server was heard")
	}
	held.Join(&network.Identity{}, &network.Network{Self: &cert.Node{Serial: big.NewInt(1)}})
	k.server(now)
	expect("the first answer", true, now)
	disk := now
	k.relay(now.Add(2*time.Hour), false)
	expect("a relay that runs alone", false, disk)
	k.relay(now.Add(timeSaved-time.Second), true)
	expect("the server's relay, soon after", false, disk)
	k.save(2 * timeSaved)
	expect("not old enough", false, disk)
	disk = now.Add(timeSaved)
	k.relay(disk, true)
	expect("the server's relay, an hour later", true, disk)
	disk = disk.Add(time.Minute)
	k.server(disk)
	expect("soon after that", false, held.Identity().ServerTime)
	k.save(time.Second)
	expect("going down", true, disk)
}
