package client

import (
	"net/http"

	"hearth/server/api"
)

type versionsResponse struct {
	Versions         []string        `json:"versions"`
	UnstableFeatures map[string]bool `json:"unstable_features"`
}

// versions are the versions of the specification that clients may rely on, and the
// features that some clients look for by the name they had before they were
// specified.
//
// Spec: CS API Versions.
var versions = versionsResponse{
	Versions: []string{
		"r0.0.1", "r0.1.0", "r0.2.0", "r0.3.0", "r0.4.0", "r0.5.0", "r0.6.0", "r0.6.1",
		"v1.1", "v1.2", "v1.3", "v1.4", "v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10", "v1.11", "v1.12",
	},
	UnstableFeatures: map[string]bool{
		"org.matrix.e2e_cross_signing": true,
		"org.matrix.msc2285.stable":    true, // private read receipts
		"org.matrix.msc3440.stable":    true, // threads
		"org.matrix.msc3771":           true, // receipts and counts of threads
		"org.matrix.msc3827.stable":    true, // the directory by type of room
		"org.matrix.msc3916.stable":    true, // media for the logged-in
		"org.matrix.msc4380.stable":    true, // blocked invites
		"uk.tcpip.msc4133":             true, // profile fields of any name, under the old path
		"uk.tcpip.msc4133.stable":      true, // and under the new one

		"uk.half-shot.msc2666.query_mutual_rooms.stable": true,
	},
}

// getVersions answers GET /_matrix/client/versions.
func (s *Server) getVersions(w http.ResponseWriter, _ *http.Request, _ session) error {
	return api.WriteJSON(w, versions)
}
