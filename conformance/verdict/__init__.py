"""The verdict as data, its waivers, and the gate that accepts it."""
