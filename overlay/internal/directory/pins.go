package directory

import (
	"maps"

	"weft/overlay/cert"
)

// Names are pinned at first contact, so that a name that comes to mean another node is
// noticed.

// Pin records which nodes had these names at first contact.
func (d *Directory) Pin(names map[string]cert.NodeID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.Copy(d.pinned, names)
}

// Pins returns which node had each name at first contact.
func (d *Directory) Pins() map[string]cert.NodeID {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.pinned)
}

// NameChange is a name that now belongs to another node than at first contact.
type NameChange struct {
	Name     string
	Now, Was cert.NodeID
}

// PinNew pins the names that are new, as far as there is room, and returns those that now
// belong to another node. pinned says that it has added any.
func (d *Directory) PinNew() (others []NameChange, pinned bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, k := range d.byID {
		was, ok := d.pinned[k.Node.Name]
		switch {
		case ok && was != id:
			others = append(others, NameChange{k.Node.Name, id, was})
		case !ok && len(d.pinned) < 10*maxLookedUp:
			d.pinned[k.Node.Name], pinned = id, true
		}
	}
	return others, pinned
}
