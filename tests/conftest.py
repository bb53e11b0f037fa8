"""What holds for all tests."""

from hypothesis import settings

# A deadline would measure how busy the machine is, and fail where nothing is wrong.
settings.register_profile("atlasd", deadline=None)
settings.load_profile("atlasd")
