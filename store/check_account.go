package store

import (
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// checkAccounts holds the records of accounts, devices and tokens to each other.
func checkAccounts(c *checker) error {
	if owner := c.Owner(); owner != 0 && !c.IsLocal(owner) {
		c.faultf("the owner, user %d, has no account", owner)
	}
	err := c.eachOf(bucketUser, userAccount, func(num uint32, _, value []byte) {
		a, err := readAccount(value)
		if err != nil {
			c.faultf("account of user %d: %v", num, err)
		}
		if a.Deactivated && (a.PasswordHash != "" || a.Admin) {
			c.faultf("account of user %d is deactivated and has a password or a right", num)
		}
		if (a.Guest || a.Service) && (a.PasswordHash != "" || a.Admin) {
			c.faultf("account of user %d is a guest's or the server's own and has a password or a right", num)
		}
	})
	if err != nil {
		return err
	}
	return c.eachOf(bucketUser, userDevice, func(num uint32, rest, value []byte) {
		if _, err := readDevice(UserNum(num), matrix.DeviceID(rest), value); err != nil {
			c.faultf("%v", err)
		}
		a, err := c.Account(UserNum(num))
		if err != nil || a.Deactivated {
			c.faultf("device %s is of user %d, who has no account", rest, num)
		}
	})
}

// checkTokens holds tokens to their devices, and both ways of finding them to
// each other.
func checkTokens(c *checker) error {
	err := c.eachOf(bucketUser, userToken, func(num uint32, rest, value []byte) {
		hash, err := readHash(rest)
		if err != nil {
			c.faultf("token of user %d: %v", num, err)
			return
		}
		t, err := readToken(UserNum(num), hash, value)
		if err != nil {
			c.faultf("token of user %d: %v", num, err)
			return
		}
		if t.Kind != AccessToken && t.Kind != RefreshToken || t.State < TokenFresh || t.State > TokenSpent {
			c.faultf("token of user %d: kind %d, state %d", num, t.Kind, t.State)
		}
		if _, err := c.Device(t.User, t.Device); err != nil {
			c.faultf("token of user %d: %v", num, err)
		}
		if v := c.get(bucketUser, tokenUserKey(hash)); len(v) != 4 || u32(v) != num {
			c.faultf("token of user %d cannot be found", num)
		}
	})
	if err != nil {
		return err
	}
	return c.each(bucketUser, keyOf(0, tokenUser), func(rest, value []byte) {
		hash, err := readHash(rest)
		if err != nil || len(value) != 4 {
			c.faultf("index of tokens: key %x", rest)
			return
		}
		if c.get(bucketUser, tokenKey(UserNum(u32(value)), hash)) == nil {
			c.faultf("index of tokens: user %d has no such token", u32(value))
		}
	})
}

// checkInvitations holds login and registration tokens to their forms.
func checkInvitations(c *checker) error {
	err := c.each(bucketUser, keyOf(0, loginToken), func(_, value []byte) {
		user, _, err := readLoginToken(value)
		if err != nil || !c.IsLocal(user) {
			c.faultf("login token of user %d, who has no account: %v", user, err)
		}
	})
	if err != nil {
		return err
	}
	return c.each(bucketUser, keyOf(0, registrationToken), func(rest, value []byte) {
		if _, err := readRegistrationToken(string(rest), value); err != nil {
			c.faultf("%v", err)
		}
		if err := CheckRegistrationToken(string(rest)); err != nil {
			c.faultf("registration token: %v", err)
		}
	})
}

// checkProfiles holds profiles and filters to their bounds and to JSON, and
// presence to its form.
func checkProfiles(c *checker) error {
	size, last := 0, uint32(0)
	err := c.eachOf(bucketUser, userProfile, func(num uint32, rest, value []byte) {
		if num != last {
			size, last = 0, num
		}
		if size += fieldSize(string(rest), value); size > MaxProfileBytes {
			c.faultf("profile of user %d is too large", num)
		}
		if !isJSON(value) {
			c.faultf("profile of user %d: %s is no JSON", num, rest)
		}
	})
	if err != nil {
		return err
	}
	err = c.eachOf(bucketUser, userFilter, func(num uint32, rest, value []byte) {
		if len(rest) != 8 || !isJSON(value) {
			c.faultf("filter %x of user %d is no JSON", rest, num)
		}
	})
	if err != nil {
		return err
	}
	return c.eachOf(bucketUser, userPresence, func(num uint32, _, value []byte) {
		if _, err := readPresence(UserNum(num), value); err != nil {
			c.faultf("%v", err)
		}
	})
}

func isJSON(b []byte) bool { return jsontext.Value(b).IsValid() }
