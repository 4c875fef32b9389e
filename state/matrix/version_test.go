package matrix

import (
	"strconv"
	"testing"
)

func TestVersions(t *testing.T) {
	all := Versions()
	if len(all) != 12 {
		t.Fatalf("%d versions", len(all))
	}
	for i, v := range all {
		if v.ID != strconv.Itoa(i+1) || !v.Stable || v.redaction == nil || v.MaxDepth == 0 ||
			v.EventIDs == 0 || v.StateResolution == 0 || v.AuthRules == 0 {
			t.Errorf("row %d is not complete: %+v", i, v)
		}
		if found, ok := VersionByID(v.ID); !ok || found != v {
			t.Errorf("VersionByID(%q) = %p, %v", v.ID, found, ok)
		}
	}
	for _, id := range []string{"", "0", "13", "1.0", "org.matrix.msc"} {
		if _, ok := VersionByID(id); ok {
			t.Errorf("version %q exists", id)
		}
	}
	if _, ok := VersionByID(DefaultVersion); !ok {
		t.Error("no default version")
	}
	all[0] = nil
	if Versions()[0] == nil {
		t.Error("callers can change the table")
	}
}

// Each feature holds for one range of versions.
func TestVersionFeatures(t *testing.T) {
	for _, tt := range []struct {
		name        string
		first, last int
		has         func(*Version) bool
	}{
		{"given event IDs", 1, 2, func(v *Version) bool { return v.EventIDs == EventIDGiven }},
		{"event IDs in standard base64", 3, 3, func(v *Version) bool { return v.EventIDs == EventIDHash }},
		{"event IDs in URL-safe base64", 4, 12, func(v *Version) bool { return v.EventIDs == EventIDURLSafeHash }},
		{"state resolution 1", 1, 1, func(v *Version) bool { return v.StateResolution == StateResolutionV1 }},
		{"state resolution 2", 2, 11, func(v *Version) bool { return v.StateResolution == StateResolutionV2 }},
		{"state resolution 2.1", 12, 12, func(v *Version) bool { return v.StateResolution == StateResolutionV21 }},
		{"redactions authorized", 1, 2, func(v *Version) bool { return v.RedactionsAuthorized }},
		{"key validity", 5, 12, func(v *Version) bool { return v.KeyValidity }},
		{"aliases authorized", 1, 5, func(v *Version) bool { return v.AliasesAuthorized }},
		{"strict JSON", 6, 12, func(v *Version) bool { return v.StrictJSON }},
		{"depth of 63 bits", 1, 5, func(v *Version) bool { return v.MaxDepth == 1<<63-1 }},
		{"depth of 53 bits", 6, 12, func(v *Version) bool { return v.MaxDepth == 1<<53-1 }},
		{"notification levels", 6, 12, func(v *Version) bool { return v.NotificationLevels }},
		{"knocking", 7, 12, func(v *Version) bool { return v.Knocking }},
		{"restricted joins", 8, 12, func(v *Version) bool { return v.RestrictedJoins }},
		{"knock_restricted", 10, 12, func(v *Version) bool { return v.KnockRestricted }},
		{"integer power levels", 10, 12, func(v *Version) bool { return v.IntegerPowerLevels }},
		{"creator in content", 1, 10, func(v *Version) bool { return v.CreatorInContent }},
		{"redacts in content", 11, 12, func(v *Version) bool { return v.RedactsInContent }},
		{"room ID is a hash", 12, 12, func(v *Version) bool { return v.RoomIDIsHash }},
		{"privileged creators", 12, 12, func(v *Version) bool { return v.PrivilegedCreators }},
	} {
		for i, v := range Versions() {
			if want := i+1 >= tt.first && i+1 <= tt.last; tt.has(v) != want {
				t.Errorf("%s in version %s: %v", tt.name, v.ID, !want)
			}
		}
	}
}
