package localapi

import "weft/overlay/status"

// What has moved to package status, for those who still name it here.
type (
	Error      = status.Error
	Peer       = status.Peer
	PeerStatus = status.PeerStatus
	Pong       = status.Pong
)

const (
	KindDenied      = status.KindDenied
	KindFailed      = status.KindFailed
	KindNotJoined   = status.KindNotJoined
	KindRefused     = status.KindRefused
	KindTimeout     = status.KindTimeout
	KindUnknown     = status.KindUnknown
	KindUnreachable = status.KindUnreachable
	KindUsage       = status.KindUsage
	PathRelay       = status.PathRelay
	StateRunning    = status.StateRunning
)

var KindOf = status.KindOf
