package console

import (
	"weft/coord/doctor"
	"weft/overlay/release"
)

// Health is what the server around the console says of itself.
type Health struct {
	// Facts lack what the operations say: devices, relays, webhooks, the revocation list.
	Facts    doctor.Facts
	Database int64             // bytes on disk
	Release  *release.Manifest // that is handed out, nil for none
}
