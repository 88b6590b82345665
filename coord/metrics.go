package coord

import (
	"crypto/x509"

	"weft/coord/metrics"
)

// Collectors are what the server counts, for package metrics.
func (s *Server) Collectors() []metrics.Collector {
	return []metrics.Collector{
		s.requests.Collect, metrics.Relay(s.relay.Stats),
		metrics.Gauge("weft_server_devices", "Devices of the network.", "state", func() map[string]float64 {
			all, online := s.CountDevices()
			return map[string]float64{"online": float64(online), "offline": float64(all - online)}
		}),
		metrics.Gauge("weft_server_relays", "Relays that run alone.", "state", func() map[string]float64 {
			all, online := s.CountRelays()
			return map[string]float64{"online": float64(online), "offline": float64(all - online)}
		}),
		metrics.Gauge("weft_server_followers", "Pages of the console that are told when devices change.", "", func() map[string]float64 {
			return map[string]float64{"": float64(s.Followers())}
		}),
		metrics.Gauge("weft_server_revocation_list_bytes", "Length of the revocation list.", "", func() map[string]float64 {
			return map[string]float64{"": float64(s.Revocations().Bytes)}
		}),
		metrics.Gauge("weft_server_revocation_list_max_bytes", "How long it can be. New certificates are shorter when it is half full, and none can join when it is 7/8 full.", "", func() map[string]float64 {
			return map[string]float64{"": float64(s.Revocations().Max)}
		}),
		metrics.Gauge("weft_server_revocations_left_out", "Revoked certificates that found no room in the revocation list: 0, or something has to be done.", "", func() map[string]float64 {
			return map[string]float64{"": float64(s.Revocations().Left)}
		}),
		metrics.Gauge("weft_server_certificate_expiry_timestamp_seconds", "When the certificate of the public site ends.", "", func() map[string]float64 {
			c, _ := s.siteCertificate(s.Network().URLs[0])
			leaf, err := x509.ParseCertificate(c.Certificate[0])
			if err != nil {
				return nil
			}
			return map[string]float64{"": float64(leaf.NotAfter.Unix())}
		}),
	}
}
