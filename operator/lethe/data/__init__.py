"""What training code imports: `lethe.data.open("digits")` gives the files of a dataset of this job."""

from lethe.data.reader import EncryptedFiles
from lethe.data.reader import open_dataset as open

__all__ = ["EncryptedFiles", "open"]
